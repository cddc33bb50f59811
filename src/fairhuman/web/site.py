"""The public address of a server."""

from urllib.parse import urlsplit

from fairhuman.errors import FairHumanError


def parse_site(url: str) -> tuple[str, str]:
    """Base URL that participants use (scheme and host, without trailing slash), and its host name.

    Raises:
        FairHumanError: the URL isn't http or https, has no host, or contains a path, query, fragment or user.
    """
    try:
        parts = urlsplit(url)
        name, _ = parts.hostname, parts.port
    except ValueError:
        parts, name = urlsplit(""), None
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme not in ("http", "https") or not name or extra:
        raise FairHumanError(f"url must be like https://study.example.org, without a path, found {url!r}")
    return f"{parts.scheme}://{parts.netloc}", name
