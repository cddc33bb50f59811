"""Serve an app on a local port until Ctrl-C."""

import errno
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette

from fairhuman.errors import FairHumanError
from fairhuman.web.app import LAST_PORT
from fairhuman.web.connections import LimitedProtocol, parse_proxies

QUEUE = 1024  # connections that wait to be accepted
ACCEPTED = 16  # connections accepted at once, before any of them is counted; fewer than the open files kept for it
CLOSING_SECONDS = 3  # time for open requests after Ctrl-C
LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(
    app: Starlette,
    host: str,
    port: int,
    say: Callable[[str], None],
    proxy: str | None = None,
    locked: bool = False,
    root: str = "",
) -> None:
    """Serve until Ctrl-C or a termination signal.

    Args:
        app: the app.
        host: host name or address to listen on; other machines can connect unless it is a loopback address.
        port: port; 0 selects a free one.
        say: called with the address once the server listens.
        proxy: addresses or networks of proxies, separated by commas, whose X-Forwarded-For and -Proto are trusted;
            None: none.
        locked: whether all pages need a secret, so that no warning about open access is shown.
        root: path of the first page, without a slash at either end.

    Raises:
        FairHumanError: the host isn't an address of this machine, the port is taken, forbidden or not in 0..65535, or a
            proxy is no address.
    """
    if proxy is not None:
        parse_proxies(proxy)
    listener = _listen(host, port)
    with listener:
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{listener.getsockname()[1]}/{root} (Ctrl-C ends)")
        if host not in LOCAL and not locked:
            say("warning: there is no password, so anybody who can reach this machine can open it")
        config = uvicorn.Config(
            app,
            http=LimitedProtocol,
            backlog=ACCEPTED,
            ws="none",
            log_level="error",  # a malformed request is worth no line
            access_log=False,
            server_header=False,
            proxy_headers=proxy is not None,
            forwarded_allow_ips=proxy,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        )
        with suppress(KeyboardInterrupt):
            _Server(config).run(sockets=[listener])
        say("ended")


class _Server(uvicorn.Server):
    """Its sockets' queues are longer than the number of connections that it accepts at once, which is asyncio's."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUE)


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= LAST_PORT:  # the resolver would take it modulo 65536
        raise FairHumanError(f"port must be in 0..{LAST_PORT}, not {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        other = "; --port 0 picks a free one" if getattr(error, "errno", None) == errno.EADDRINUSE else ""
        raise FairHumanError(f"can't listen on host {host!r}, port {port}: {why}{other}") from error
