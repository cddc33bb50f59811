"""A real endpoint on this machine that answers as it is told to, and remembers what it was asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = "A man in a red hat."


@dataclass(frozen=True)
class Answer:
    """What to send; `seconds` before it and, with `drip`, before each byte; `drop` closes instead."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    drop: bool = False
    drip: bool = False
    kind: str = "application/json"


def said(content: object = GOOD, finish: str = "stop", **more: object) -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish}
    return Answer(body=json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode())


def error(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    body = json.dumps({"error": {"message": message, "code": code}}).encode()
    return Answer(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


@dataclass(frozen=True)
class Asked:
    """One request: when it came, its headers and body, and how many were being answered then."""

    time: float
    headers: dict[str, str]
    body: dict
    together: int

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


@contextmanager
def endpoint(answer: Callable[[int], Answer]) -> Iterator[tuple[str, list[Asked]]]:
    """The address of a server whose n-th request, from 0, gets `answer(n)`; and what it was asked so far."""
    asked: list[Asked] = []
    lock, over = threading.Lock(), threading.Event()
    together = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal together
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                together += 1
                number = len(asked)
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked.append(Asked(time.monotonic(), headers, body, together))
            reply = answer(number)
            over.wait(reply.seconds)
            with lock:
                together -= 1
            if reply.drop:
                self.close_connection = True
                return
            try:
                self.send_response(reply.status)
                self.send_header("content-type", reply.kind)
                self.send_header("content-length", str(len(reply.body)))
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in [reply.body[n : n + 1] for n in range(len(reply.body))] if reply.drip else [reply.body]:
                    self.wfile.write(piece)
                    over.wait(reply.seconds * reply.drip)
            except OSError:
                self.close_connection = True  # the client has lost its patience

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", asked
        finally:
            over.set()
            server.shutdown()
            thread.join()
