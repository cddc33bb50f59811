"""Common parts of all web apps: templates, static files, security headers, error pages and a health route."""

import hashlib
import ipaddress
import logging
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairhuman.errors import FairHumanError
from fairhuman.web.database import outage_is_known

HERE = Path(__file__).parent
MAX_BODY = 64 * 1024  # bytes
# A name, an IPv4 address or an IPv6 address in brackets, and a port.
HOST = re.compile(r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?", re.ASCII | re.IGNORECASE)
LAST_PORT = 65535
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Only resources of this server, no inline scripts or styles: injected code can't run even if escaping fails.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_UNREACHABLE = (OperationalError, InterfaceError, NoConnectionError)
BodyT = TypeVar("BodyT", bound=BaseModel)


class RefusedError(FairHumanError):
    """A request is refused and nothing was changed; `status` is the HTTP status (4xx), `headers` are added to it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})


def create_app(
    routes: Sequence[BaseRoute],
    hosts: Sequence[str] = (),
    close: Callable[[], None] | None = None,
    site: str | None = None,
) -> Starlette:
    """Create an app from routes, with `/static`, `/health`, security headers and error handling.

    Args:
        routes: routes of the pages.
        hosts: accepted host names besides `localhost` and IP addresses. Others are refused, because a malicious page
            could point its own host name at this machine and read responses (DNS rebinding).
        close: called once when the server stops.
        site: public address such as https://study.example.org. Requests to its host that may change something must come
            from a page of this scheme, also where the proxy in front doesn't tell the scheme.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        if close is not None:
            close()

    health = Route("/health", lambda _: JSONResponse({"status": "ok"}))
    shared = [health, Mount("/static", _Static(directory=HERE / "static"))]
    return Starlette(
        routes=[*routes, *shared],
        lifespan=lifespan,
        middleware=[Middleware(_Guard, hosts=hosts, site=site)],
        exception_handlers={
            HTTPException: _http_error,
            RefusedError: _refused,
            DBAPIError: _database_error,
            NoConnectionError: _database_error,
            Exception: _own_error,
        },
    )


def page(template: str, status: int = 200, **context: object) -> HTMLResponse:
    """Render `web/templates/<template>`; a variable missing from `context` is an error."""
    return HTMLResponse(_templates().get_template(template).render(**context), status)


async def read_json(request: Request, kind: type[BodyT], limit: int = MAX_BODY) -> BodyT:
    """Read the body of a request and validate it as `kind`.

    Raises:
        RefusedError: not sent as JSON (415), longer than `limit` bytes (413), cut off (400), or invalid (422).
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "The request must be sent as application/json.")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise RefusedError(413, f"The request must be at most {limit} bytes long.")
    except ClientDisconnect as error:  # nobody reads the answer, but without it the log gets a traceback
        raise RefusedError(400, "The request ended too early.") from error
    try:
        return kind.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RefusedError(422, f"{place}: {first['msg']}" if place else first["msg"]) from error


@lru_cache(maxsize=1)
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = _static_url
    return environment


@lru_cache
def _static_url(name: str) -> str:
    """URL of a static file with a digest of its content, so that browsers may cache it forever."""
    return f"/static/{name}?v={hashlib.sha256((HERE / 'static' / name).read_bytes()).hexdigest()[:16]}"


class _Static(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        lasting = scope["query_string"].startswith(b"v=")
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if lasting else "no-cache"
        return response


class _Guard:
    """Middleware that refuses unknown hosts and cross-site requests, and adds security headers to responses."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], site: str | None) -> None:
        self._app = app
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._site = None if site is None else _without_default_port(site.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope["method"], scope.get("scheme", "http"), Headers(scope=scope))
        if refusal is not None:
            await _answer(Request(scope), refusal.status, str(refusal))(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, scheme: str, headers: Headers) -> RefusedError | None:
        host = headers.get("host", "")
        if not self._is_own(host):
            return RefusedError(
                400, "This server isn't known by that name. Please use the address it printed when it started."
            )
        # Browsers send Origin with every request that can change something, and pages can't forge it.
        if method not in SAFE_METHODS and headers.get("origin", "").lower() != self._origin(scheme, host.lower()):
            return RefusedError(403, "The request must come from a page of this server.")
        return None

    def _origin(self, scheme: str, host: str) -> str:
        """Origin of this server's own pages: the public address if that was called, else scheme and host."""
        public = (self._site or "").partition("://")[0]
        found = _without_default_port(f"{public}://{host}")
        return found if found == self._site else _without_default_port(f"{scheme}://{host}")

    def _is_own(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        if found is None or int(found["port"] or 0) > LAST_PORT:
            return False
        name = found["name"].strip("[]").lower()
        if name in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _without_default_port(origin: str) -> str:
    """Scheme and host as browsers write them in Origin."""
    return origin.removesuffix(DEFAULT_PORTS.get(origin.partition("://")[0], " "))


def _answer(request: Request, status: int, message: str) -> Response:
    """An error as a page for browsers, as JSON for scripts."""
    if "text/html" in request.headers.get("accept", ""):
        return page("error.html", status, message=message)
    return JSONResponse({"message": message}, status)


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = "There is no such page." if error.status_code == 404 else f"{error.detail}."
    response = _answer(request, error.status_code, message)
    response.headers.update(error.headers or {})
    return response


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    response = _answer(request, error.status, str(error))
    response.headers.update(error.headers)
    return response


def _database_error(request: Request, error: Exception) -> Response:
    """SQLite's messages are shown; those of other databases may contain hosts and users, so they are only logged."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    local = isinstance(cause, sqlite3.Error)
    if not local and not (isinstance(error, _UNREACHABLE) and outage_is_known()):
        logging.getLogger(__name__).error("the database can't be used: %s", " ".join(str(cause).split()))
    why = cause if local else "see the server's terminal"
    return _answer(request, 503, f"The database is not available, so nothing was saved: {why}.")


def _own_error(request: Request, _: Exception) -> Response:
    """Runs outside all middleware, so the headers are added here; the server's log has the traceback."""
    response = _answer(request, 500, "The server failed, so nothing was saved. See its terminal for details.")
    response.headers.update(SECURITY_HEADERS)
    return response
