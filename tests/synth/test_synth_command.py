"""The command `fairhuman synth`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman.cli import main
from fairhuman.synth import workers
from fairhuman.synth.body import Body

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], body: Body) -> Run:
    """Run the command in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(workers, "Body", lambda _: body)

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fairhuman", "synth", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return command


def test_it_renders_resumes_and_summarises(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "people"
    settings = (out, "--size", 32, "--seed", 3, "--degraded", 0.5, "--workers", 1)
    code, shown, errors = run(*settings, "--count", 6)
    assert (code, errors) == (0, "")
    assert "rendering 6/6" in shown
    assert "6 pictures, 6 faces, 1" in shown
    assert "faces and hands degraded in " in shown
    assert "visible on average: face " in shown
    kept = (out / "synth.json").read_bytes()
    assert json.loads(kept)["seed"] == 3
    code, again, _ = run(*settings, "--count", 6)
    assert code == 0
    assert again.splitlines()[-3:] == shown.splitlines()[-3:]
    assert (out / "synth.json").read_bytes() == kept


def test_a_dry_run_shows_what_is_missing_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "people"
    code, shown, _ = run(out, "--count", 300, "--dry-run")
    assert code == 0
    assert "300 of 300 pictures to render" in shown.replace("\n", " ")
    assert not out.exists()


def test_wrong_usage_is_2_and_failure_is_1(run: Run, tmp_path: Path) -> None:
    assert run(tmp_path / "a")[0] == 2
    for options, message in (
        (("--count", 0), "count: input should be greater than or equal to 1, found 0"),
        (("--count", 1, "--size", 7), "size: input should be greater than or equal to 16, found 7"),
        (("--count", 1, "--degraded", 2), "degraded: input should be less than or equal to 1, found 2.0"),
    ):
        code, _, errors = run(tmp_path / "a", *options, "--dry-run")
        assert (code, errors) == (2, f"error: synth: {message}\n")
    (tmp_path / "notes.txt").touch()
    code, _, errors = run(tmp_path, "--count", 1)
    assert code == 1
    assert errors.count("\n") == 1
    assert f"{tmp_path} must be a new or empty folder" in errors
