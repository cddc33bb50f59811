"""What all pages share: the app's frame, its templates and static files, the database, the server."""
