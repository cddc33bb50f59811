"""Prompts by a model: asked for once each, on disk at once, whatever ends the run."""

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from PIL import Image

from fairhuman.config import build
from fairhuman.data.caption.item import Caption, CaptionItem
from fairhuman.data.pictures.decode import PictureLimits
from fairhuman.data.validation.build import build_validation
from fairhuman.data.validation.prompts import NO_PERSON, model_prompts
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord
from fairhuman.utils.journal import Journal
from helpers import warm
from helpers.figures import write_figures

PAUSE = 0.1  # seconds of an answer


class Looker:
    """A captioner that says how wide the picture is, and fails for some keys."""

    name, batch_size = "looker", 2

    def __init__(self, failing: Sequence[str] = (), ends_at: int | None = None, says: str = "a man {}") -> None:
        self.failing, self.ends_at, self.says = failing, ends_at, says
        self.asked: list[str] = []

    def caption(self, items: Sequence[CaptionItem]) -> list[Caption | Failure]:
        if self.ends_at is not None and len(self.asked) >= self.ends_at:
            raise DataError("the key isn't accepted")
        self.asked += [item.key for item in items]
        return [
            Failure("no answer")
            if item.key in self.failing
            else Caption(self.says.format(item.picture().width), (5, 5))
            for item in items
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def records(tmp_path: Path) -> list[tuple[HumanRecord, str]]:
    found = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (40 + number, 40)).save(path)
        found.append((HumanRecord(str(number), path, 40 + number, 40, ""), f"digest {number}"))
    return found


def ask(records: Any, looker: Looker, folder: Path) -> list[Caption | Failure]:
    journal = Journal(folder / "prompts.jsonl")
    return list(model_prompts(records, looker, journal, PictureLimits(), lambda *_: None))


def test_each_answer_belongs_to_its_picture_and_is_requested_once(records: Any, tmp_path: Path) -> None:
    first = Looker()
    answers = ask(records, first, tmp_path)
    assert [answer.text for answer in answers] == [f"a man {width}" for width in range(40, 45)]
    second = Looker()
    assert ask(records, second, tmp_path) == answers
    assert second.asked == []


def test_answers_before_the_end_of_a_run_are_kept(records: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="key"):
        ask(records, Looker(ends_at=4), tmp_path)
    again = Looker()
    ask(records, again, tmp_path)
    assert again.asked == ["4"]


def test_failures_and_changed_pictures_are_requested_again(records: Any, tmp_path: Path) -> None:
    assert ask(records, Looker(failing=("1",)), tmp_path)[1] == Failure("no answer")
    changed = [(record, "another" if record.key == "3" else digest) for record, digest in records]
    again = Looker()
    ask(changed, again, tmp_path)
    assert again.asked == ["1", "3"]


def test_an_answer_without_a_person_is_a_failure(records: Any, tmp_path: Path) -> None:
    assert set(ask(records, Looker(says="a dog {}"), tmp_path)) == {Failure(NO_PERSON)}


@pytest.mark.parametrize("torn", [b'{"key": "half', b"\xff\xfe", b""])
def test_a_line_that_was_not_finished_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).add([{"key": "a", "text": "ä\nb"}])
    with path.open("ab") as file:
        file.write(torn)
    journal = Journal(path)
    journal.add([{"key": "b"}])
    assert [row["key"] for row in journal] == ["a", "b"]
    assert next(iter(journal))["text"] == "ä\nb"


class Endpoint(BaseHTTPRequestHandler):
    """Answers like vLLM, slowly; counts what it was asked by the picture."""

    asked: Counter[str]
    answer: str
    dogs: int  # answers at the beginning that name no person

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        picture = next(part["image_url"]["url"] for part in body["messages"][-1]["content"] if "image_url" in part)
        type(self).asked[picture] += 1
        time.sleep(PAUSE)
        text = "A dog." if self.asked.total() <= self.dogs else self.answer
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        content = json.dumps({"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[tuple[str, type[Endpoint]]]:
    handler = type("Counting", (Endpoint,), {"asked": Counter(), "answer": "A man in a shirt standing.", "dogs": 0})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def values(url: str, count: int) -> dict[str, Any]:
    model = {"base_url": url, "model": "m", "concurrency": 1, "retries": 0}
    filters = {"min_side": 64, "min_clarity_percentile": None, "unknown": "keep"}
    return {"count": count, "filters": filters, "detect": None, "prompts": {"kind": "endpoint", "endpoint": model}}


@pytest.mark.slow
def test_a_killed_run_resumes_with_its_prompts(endpoint: tuple[str, Any], tmp_path: Path) -> None:
    url, handler = endpoint
    write_figures(tmp_path / "source", 20)
    chosen = values(url, 12)
    script = (
        "import json, sys; from pathlib import Path; from fairhuman.config import build\n"
        "from fairhuman.data.validation.build import build_validation\n"
        "from fairhuman.data.validation.settings import ValidationSetSettings\n"
        "build_validation(Path(sys.argv[1]), Path(sys.argv[2]), build(ValidationSetSettings, json.loads(sys.argv[3])))"
    )
    out, journal = tmp_path / "out", tmp_path / ".out.work" / "prompts.jsonl"
    arguments = [sys.executable, "-c", script, str(tmp_path / "source"), str(out), json.dumps(chosen)]
    process = warm.Popen(arguments, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not (journal.is_file() and journal.stat().st_size) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not out.exists()
    kept = len(list(Journal(journal)))
    assert 0 < kept < 12
    with pytest.raises(DataError, match=r"count was 12, now 11(?s:.*)or remove .*\.out\.work"):
        build_validation(tmp_path / "source", out, build(ValidationSetSettings, values(url, 11)))
    assert build_validation(tmp_path / "source", out, build(ValidationSetSettings, chosen)).pictures == 12
    assert len(handler.asked) == 12  # of 20: only what was drawn
    assert sum(handler.asked.values()) - 12 <= 4  # those of the batch that was under way
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["caption"] for row in rows} == {"A man in a shirt standing."}
    assert not (tmp_path / ".out.work").exists()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PAUSE", 0.0)


@pytest.mark.usefixtures("quick")
def test_a_failed_prompt_is_replaced_by_the_next_picture(endpoint: tuple[str, Any], tmp_path: Path) -> None:
    url, handler = endpoint
    write_figures(tmp_path / "source", 8)
    handler.dogs = 3
    summary = build_validation(tmp_path / "source", tmp_path / "out", build(ValidationSetSettings, values(url, 5)))
    assert (summary.pictures, summary.usable, summary.reasons) == (5, 5, {NO_PERSON: 3})
    assert set(handler.asked.values()) == {1}


@pytest.mark.usefixtures("quick")
def test_too_many_failures_end_the_run_with_their_reasons(endpoint: tuple[str, Any], tmp_path: Path) -> None:
    url, handler = endpoint
    write_figures(tmp_path / "source", 16)
    handler.dogs = 99
    with pytest.raises(DataError, match=r"11 prompts failed, more than prompts.max_failed_share = 0.1") as found:
        build_validation(tmp_path / "source", tmp_path / "out", build(ValidationSetSettings, values(url, 2)))
    assert NO_PERSON in str(found.value)
    assert not (tmp_path / "out").exists()
