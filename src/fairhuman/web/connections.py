"""Connections with deadlines and limits, so that slow or many clients can't keep others out.

A client must send the head of a request within `HEAD_SECONDS`, and its body within `BODY_SECONDS`, and go on reading a
long answer within `READ_SECONDS`. A process keeps as many connections as its limit of open files allows, and at most
half of them for one address (`limited_as`). Where there are more, the connection that has waited the longest for its
client, to send a request or to read an answer, is closed; if none waits, the new one. Nothing of this is logged: a
flood of connections would be a flood of lines.
"""

import asyncio
import fcntl
import resource
import sys
import termios
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from fairhuman.errors import FairHumanError

Network = IPv4Network | IPv6Network
EVERY = ("0.0.0.0/0", "::/0")
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0  # for at most 64 KiB of a study, or 8 MiB of the studio, which takes 280 kB a second
READ_SECONDS = 30.0  # in which a client must read something of an answer
MOST = 1000  # connections
OTHER_FILES = 100  # open files for anything but connections


def connection_limit() -> int:
    """How many connections this process may have: its open files less `OTHER_FILES`, at least half, at most `MOST`."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MOST
    return max(1, min(MOST, max(files - OTHER_FILES, files // 2)))


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 with the deadlines and limits of this module."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._awaited: object = None  # what the deadline is for: the head or the body
        self._since = 0.0
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection if there is room."""
        super().connection_made(transport)
        self._watch()
        self._make_room()

    def data_received(self, data: bytes) -> None:
        """Handle bytes of the client."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Go on with the next request of the connection."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop()
        self._stop_reading()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait until the client has read of a long answer; meanwhile nothing is added to it."""
        super().pause_writing()
        self._since = self.loop.time()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Go on with a long answer."""
        super().resume_writing()
        self._stop_reading()

    def _expect_reading(self) -> None:
        self._reading = self.loop.call_later(READ_SECONDS, self._check_reading, self._unread())

    def _check_reading(self, left: int) -> None:
        """Close the connection if there are still `left` bytes that the client hasn't read."""
        if self._unread() < left:
            self._expect_reading()
        else:
            self.transport.abort()

    def _unread(self) -> int:
        """Bytes of the answer that the client's machine hasn't received, also those that the system holds for it."""
        waiting = bytes(4)
        with suppress(OSError):  # a system that doesn't say
            waiting = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
        return self.transport.get_write_buffer_size() + int.from_bytes(waiting, sys.byteorder)

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    @property
    def _waits(self) -> bool:
        """Whether the next thing to happen is that the client sends the head of a request, or reads an answer."""
        return self.conn.their_state is h11.IDLE or self.flow.write_paused

    def _watch(self) -> None:
        """Start the deadline of what the client has to send next, unless it runs already."""
        state = self.conn.their_state
        seconds = {h11.IDLE: HEAD_SECONDS, h11.SEND_BODY: BODY_SECONDS}.get(state)
        if seconds is None or self.transport.is_closing():
            self._stop()
        elif state is not self._awaited or self._deadline is None:
            self._stop()
            self._awaited, self._since = state, self.loop.time()
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline, self._awaited = None, None

    def _make_room(self) -> None:
        """Close a connection if there are too many, of this client or in all."""
        limit = connection_limit()
        everybody = [one for one in self.connections if isinstance(one, LimitedProtocol)]
        own = [one for one in everybody if self._address is not None and one._address == self._address]
        for group, most in ((own, max(1, limit // 2)), (everybody, limit)):
            if len(group) > most:
                victim = min((one for one in group if one._waits), key=lambda one: one._since, default=self)
                victim.transport.abort()
                self.connections.discard(victim)
                return

    @property
    def _address(self) -> str | None:
        """Address of the client as `limited_as`; None for a proxy, which speaks for many."""
        host = self.client[0] if self.client else None
        trusted = self.config.forwarded_allow_ips if self.config.proxy_headers else None
        if host is None or (isinstance(trusted, str) and _is_in(host, parse_proxies(trusted))):
            return None
        return limited_as(host)


def limited_as(host: str) -> str:
    """What counts as one address where clients are limited: an IPv4 address, or the /64 that an IPv6 address is in.

    A /64 is the least that an IPv6 network gets, so that one machine may have all of its addresses. What is no
    address, as the host of a Unix socket, counts as it is.
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped or ip_network((address, 64), strict=False))


@lru_cache(maxsize=16)
def parse_proxies(text: str) -> tuple[Network, ...]:
    """Networks of the proxies whose headers are trusted: addresses and networks, separated by commas; `*`: all.

    Raises:
        FairHumanError: a part is neither.
    """
    found: list[Network] = []
    for part in map(str.strip, text.split(",")):
        try:
            found += map(ip_network, EVERY if part == "*" else (part,))
        except ValueError as error:
            raise FairHumanError(
                "proxy-headers must be the proxies' addresses or networks, such as 127.0.0.1 or 10.0.0.0/8, separated "
                f"by commas; found {part!r}: {error}"
            ) from error
    return tuple(found)


def _is_in(host: str, networks: tuple[Network, ...]) -> bool:
    address = ip_address(host.partition("%")[0])
    return any(address in network for network in networks)
