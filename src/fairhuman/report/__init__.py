"""Self-contained HTML reports with tables and plots."""
