"""Put an app on a port of this machine until Ctrl-C."""

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette

from fairhuman.errors import FairHumanError

CLOSING_SECONDS = 3  # that open requests have after Ctrl-C
LAST_PORT = 65535
LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(
    app: Starlette, host: str, port: int, say: Callable[[str], None], proxy: str | None = None, locked: bool = False
) -> None:
    """Serve until Ctrl-C or a signal to end.

    Args:
        app: to be served.
        host: name or address of this machine to listen at; others reach it only where this isn't a local one.
        port: 0 takes a free one.
        say: told the address once it answers there.
        proxy: addresses, with commas between, of a proxy whose X-Forwarded-For and -Proto are believed; None: nobody's.
        locked: whether all pages want a secret, so that it needn't be said that anybody can open them.

    Raises:
        FairHumanError: the host isn't this machine's, or the port is taken, forbidden or outside of 0..65535.

    """
    listener = _listen(host, port)
    with listener:
        shown = f"[{host}]" if ":" in host else host
        say(f"http://{shown}:{listener.getsockname()[1]}/ (Ctrl-C ends)")
        if host not in LOCAL and not locked:
            say("anybody who reaches this machine can open it: there is no password")
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=proxy is not None,
            forwarded_allow_ips=proxy,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        say("ended")


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= LAST_PORT:  # the system's resolver would take it modulo 65536
        raise FairHumanError(f"port must be in 0..{LAST_PORT}, not {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise FairHumanError(f"host {host!r}, port {port}: can't be listened at: {why}") from error
