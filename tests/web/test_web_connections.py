"""Slow and many connections: others are served meanwhile, nothing is kept for long, and nothing fills the log."""

import contextlib
import json
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence

import pytest

from fairhuman.errors import FairHumanError
from fairhuman.web import connections
from fairhuman.web.connections import MOST, connection_limit, limited_as, parse_proxies

PROGRAM = """
import resource, sys
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from fairhuman.config import Settings
from fairhuman.web import connections
from fairhuman.web.app import create_app, read_json
from fairhuman.web.serve import serve
files, head, body = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
connections.HEAD_SECONDS, connections.BODY_SECONDS, connections.READ_SECONDS = head, body, body
class Number(Settings):
    number: int
async def count(request):
    return JSONResponse({"number": (await read_json(request, Number)).number})
async def parts():
    for _ in range(256):
        yield bytes(2**16)
def long(request):
    return StreamingResponse(parts())
app = create_app([Route("/count", count, methods=["POST"]), Route("/long", long)])
serve(app, "127.0.0.1", 0, lambda text: print(text, flush=True), *sys.argv[4:])
"""
HALF = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "


LONG = b"GET /long HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Server:
    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().split()[0].rstrip("/")
        self.port = int(self.address.rpartition(":")[2])

    def connect(self, sent: bytes = b"", received: int | None = None) -> socket.socket:
        """A connection that has sent something, with a buffer of `received` bytes."""
        client = socket.socket()
        client.settimeout(20)
        if received is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
        client.connect(("127.0.0.1", self.port))
        client.sendall(sent)
        return client

    def healthy(self) -> bool:
        with urllib.request.urlopen(f"{self.address}/health", timeout=20) as answer:
            return answer.status == 200

    def end(self) -> str:
        """End the server; what it wrote as errors."""
        self.process.terminate()
        return self.process.communicate(timeout=30)[1]


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    running: list[Server] = []

    def start(*arguments: object) -> Server:
        running.append(Server(*arguments))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.communicate()


def ended(client: socket.socket, within: float) -> bool:
    """Whether the server closes the connection in time."""
    client.settimeout(within)
    try:
        while client.recv(4096):
            pass
    except TimeoutError:
        return False
    except OSError:
        return True
    return True


def count_open(clients: Sequence[socket.socket]) -> int:
    return sum(not ended(client, 0.01) for client in clients)


def test_many_half_requests_don_t_keep_others_out(server) -> None:
    """More connections than the process may have files, none of which ends its head."""
    running = server(200, 30, 30)
    with contextlib.ExitStack() as held:
        for _ in range(250):
            held.enter_context(contextlib.closing(running.connect(HALF)))
        start = time.monotonic()
        assert all(running.healthy() for _ in range(5))
        assert time.monotonic() - start < 10
    assert running.end() == "", "no line for any of it"


def test_many_who_read_nothing_don_t_keep_others_out(server) -> None:
    running = server(200, 30, 30)
    with contextlib.ExitStack() as held:
        for _ in range(150):
            held.enter_context(contextlib.closing(running.connect(LONG, 4096)))
        start = time.monotonic()
        assert all(running.healthy() for _ in range(5))
        assert time.monotonic() - start < 10
    assert running.end() == ""


def test_a_long_answer_must_be_read(server) -> None:
    running = server(500, 5, 0.6)
    with (
        contextlib.closing(running.connect(LONG, 4096)) as lazy,
        contextlib.closing(running.connect(LONG, 4096)) as slow,
    ):
        start = time.monotonic()
        while time.monotonic() - start < 1.5:  # more than twice the deadline, with something read all the time
            assert slow.recv(2**16)
            time.sleep(0.02)
        received = 0
        with contextlib.suppress(OSError):
            while part := lazy.recv(2**16):
                received += len(part)
        assert received < 2**24
    assert running.end() == ""


def test_a_head_and_a_body_have_deadlines(server) -> None:
    running = server(500, 0.5, 1.0)
    body = json.dumps({"number": 4}).encode()
    head = (
        f"POST /count HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\nOrigin: {running.address}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with contextlib.closing(running.connect()) as silent, contextlib.closing(running.connect(HALF)) as half:
        assert ended(silent, 10)
        assert ended(half, 10)
    with contextlib.closing(running.connect(head + body[:3])) as slow:
        time.sleep(0.7)
        slow.sendall(body[3:5])  # a body has more time than a head, however it comes
        assert ended(slow, 10)
    with contextlib.closing(running.connect(head)) as whole:
        time.sleep(0.7)
        whole.sendall(body)
        answer = whole.recv(4096)
        while b'{"number":4}' not in answer:
            answer += whole.recv(4096)
            assert len(answer) < 4096
        whole.sendall(HALF)  # the next request of the connection has its deadline too
        assert ended(whole, 10)
    assert running.end() == ""


def test_what_is_no_http_fills_no_log(server) -> None:
    running = server(500, 5, 5)
    for content in (
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\0" * 99,
    ):
        with contextlib.closing(running.connect(content)) as client:
            assert ended(client, 10)
    assert running.healthy()
    assert running.end() == ""


def test_an_address_may_have_half_of_all_connections_and_a_proxy_all(server) -> None:
    for proxy, expected in (((), 51), (("127.0.0.0/8",), 102)):
        running = server(202, 30, 30, *proxy)
        with contextlib.ExitStack() as held:
            clients = [held.enter_context(contextlib.closing(running.connect(HALF))) for _ in range(150)]
            deadline = time.monotonic() + 20
            while count_open(clients) > expected and time.monotonic() < deadline:
                pass
            assert count_open(clients) == expected, "and no more are closed later"


def test_proxies_are_addresses_or_networks() -> None:
    assert parse_proxies("*") == parse_proxies("0.0.0.0/0, ::/0")
    assert [str(one) for one in parse_proxies("10.0.0.0/8, 127.0.0.1,::1")] == ["10.0.0.0/8", "127.0.0.1/32", "::1/128"]
    for text in ("localhost", "10.0.0.0/33", "10.1.2.3/8", "127.0.0.1,", ""):
        with pytest.raises(FairHumanError, match="proxy-headers must be"):
            parse_proxies(text)


@pytest.mark.parametrize(
    ("host", "one"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:ffff::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_all_addresses_of_an_ipv6_network_are_limited_as_one(host: str, one: str) -> None:
    assert limited_as(host) == one


def test_the_limit_follows_the_files_that_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, expected in ((1024, 924), (200, 100), (64, 32), (10**6, MOST), (resource.RLIM_INFINITY, MOST), (1, 1)):
        monkeypatch.setattr(connections.resource, "getrlimit", lambda _, files=files: (files, files))
        assert connection_limit() == expected
