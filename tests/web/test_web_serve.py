"""The server: a free port, its address, a clean end."""

import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from fairhuman.errors import FairHumanError
from fairhuman.web.app import create_app
from fairhuman.web.serve import serve

PROGRAM = """
from fairhuman.web.app import create_app
from fairhuman.web.serve import serve
serve(create_app([], close=lambda: print("closed", flush=True)), "127.0.0.1", 0, lambda text: print(text, flush=True))
"""


def test_it_answers_at_the_address_it_tells_and_ends_on_ctrl_c():
    command = [sys.executable, "-W", "error", "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[0]
        with urllib.request.urlopen(f"{address}health", timeout=30) as answer:
            assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
            assert "server" not in answer.headers
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output.split(), errors) == (0, ["closed", "ended"], "")


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FairHumanError, match=rf"can't listen on host '127.0.0.1', port {port}: .*; --port 0 picks"):
            serve(create_app([]), "127.0.0.1", port, print)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 70])
def test_hosts_that_aren_t_this_machine(host):
    with pytest.raises(FairHumanError, match="can't listen on"):
        serve(create_app([]), host, 0, print)


@pytest.mark.parametrize("port", [-1, 65536, 70_000])
def test_ports_that_can_t_be(port):
    with pytest.raises(FairHumanError, match=f"not {port}"):
        serve(create_app([]), "127.0.0.1", port, print)


def test_without_the_extra_a_review_says_what_to_install():
    program = "import sys; sys.modules['starlette'] = None; import fairhuman.data.review"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "FairHumanError: reviewing needs additional packages: pip install 'fairhuman[web]'" in done.stderr
