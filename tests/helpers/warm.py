"""Processes that start with the imports done: forked from a server that has imported the training code once.

Importing torch, diffusers and transformers takes several seconds of a processor; tests start about a hundred processes.
One server serves all workers of a test run: `share`. `Popen` takes the arguments of `subprocess.Popen` that tests and
`compare.jobs` use. What a test wants to know about the start of a process itself it must ask a real one.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver, reduction, resource_tracker
from typing import IO, Any

PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["helpers.on_request", "fairhuman.cli.watch", "fairhuman.train.loop", "fairhuman.generate.run", "helpers.warm"]
)
ADDRESS = "FAIRHUMAN_TESTS_FORK_SERVER"


def share() -> None:
    """Start a server that all workers of pytest use; it imports at the first request, and ends with this process."""
    _serve()
    os.environ[ADDRESS] = forkserver._forkserver._forkserver_address


@cache
def _serve() -> None:
    """Take the shared server, or start one; strings have other hashes there than here."""
    server = forkserver._forkserver
    if ADDRESS in os.environ:
        server._forkserver_address = os.environ[ADDRESS]
        server._forkserver_alive_fd = os.open(os.devnull, os.O_WRONLY)
        server.ensure_running = resource_tracker.ensure_running
        return
    seed = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = "2" if seed == "1" else "1"
    try:
        server.ensure_running()
    finally:
        os.environ.pop("PYTHONHASHSEED") if seed is None else os.environ.update(PYTHONHASHSEED=seed)


class _Inherited:
    """A file descriptor that a forked process gets a duplicate of; unpickled it is that number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _number, (reduction.DupFd(self.number),)


def _number(inherited: Any) -> int:
    return int(inherited.detach())


def _run(
    command: Sequence[str], cwd: str | None, env: Mapping[str, str], files: Sequence[Any], new_session: bool
) -> None:
    """Become `python -m MODULE ARGUMENTS` or `python -c CODE ARGUMENTS` with these standard output and error."""
    if new_session:
        os.setsid()
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
    os.chdir(cwd or ".")
    os.environ.clear()
    os.environ.update(env)
    _, flag, what, *arguments = command
    sys.argv = [flag, *arguments]
    if flag == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


class Popen:
    """A started command [python, -m | -c, MODULE | CODE, *ARGUMENTS]."""

    def __init__(
        self,
        command: Sequence[object],
        *,
        cwd: object = None,
        env: Mapping[str, str] | None = None,
        stdin: int | None = DEVNULL,
        stdout: int | IO[bytes] | None = None,
        stderr: int | None = None,
        text: bool = True,
        start_new_session: bool = False,
    ) -> None:
        assert stdin == DEVNULL
        _serve()
        self.args, self.returncode = command, None
        self.stdout, out = _pipe(stdout, 1, text)
        self.stderr, err = (None, out) if stderr == STDOUT else _pipe(stderr, 2, text)
        environment = dict(os.environ if env is None else env)
        place = None if cwd is None else str(cwd)
        files = [_Inherited(number) for number in (out, err)]
        self._process = CONTEXT.Process(
            target=_run, args=(list(map(str, command)), place, environment, files, start_new_session)
        )
        self._process.start()
        for number in {out, err} - {1, 2} - ({stdout.fileno()} if hasattr(stdout, "fileno") else set()):
            os.close(number)
        self.pid = self._process.pid
        assert self.pid is not None

    def poll(self) -> int | None:
        self.returncode = self._process.exitcode
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(list(map(str, self.args)), timeout or 0.0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[Any, Any]:
        """Read both outputs to their ends, then wait."""
        read: dict[str, Any] = {"stdout": None, "stderr": None}

        def take(name: str, file: IO[Any]) -> None:
            with file:
                read[name] = file.read()

        named = [(name, file) for name, file in (("stdout", self.stdout), ("stderr", self.stderr)) if file is not None]
        readers = [threading.Thread(target=take, args=each, daemon=True) for each in named]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        return read["stdout"], read["stderr"]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()

    def terminate(self) -> None:
        self._process.terminate()


def _pipe(wanted: int | IO[bytes] | None, own: int, text: bool) -> tuple[IO[Any] | None, int]:
    """The end to read from, if there is one, and the descriptor to write to."""
    if wanted is None:
        return None, own
    if wanted == PIPE:
        reading, writing = os.pipe()
        return os.fdopen(reading, "r" if text else "rb"), writing
    if wanted == DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    assert not isinstance(wanted, int)
    return None, wanted.fileno()


def run(command: Sequence[object], *, timeout: float = 300, check: bool = False, **options: Any) -> Any:
    """As `subprocess.run` with captured text."""
    with_pipes = {"stdout": PIPE, "stderr": PIPE, **options}
    process = Popen(command, **with_pipes)
    try:
        stdout, stderr = process.communicate(timeout)
    finally:
        process.kill()
    done = subprocess.CompletedProcess(list(map(str, command)), process.wait(), stdout, stderr)
    if check:
        done.check_returncode()
    return done
