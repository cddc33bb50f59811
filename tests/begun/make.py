"""Makes the folders beside this file: work that the code of commit 7d25134 has begun and left.

Run it with that commit's code on the path; see README.md. It speaks to the package through its command line and its web
pages alone. `test_begun.py` uses the same commands and helpers to go on with the work.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet

import fairhuman

HERE = Path(__file__).resolve().parent
COMMIT = "7d25134"
PLACE = "{here}"  # stands in the files for the folder that all commands are run in
MODIFIED = 1_790_000_000  # seconds since 1970: a build knows its pictures by the times of their files
DEADLINE = 300  # seconds

# The commands, run in a folder that holds `people`, `spoilt` and one of the folders, as `fairhuman ...`.
TRAIN = ("train", "training/lora.yaml")
BUILD = ("data", "build", "people", "build/out", "min_side=64", "block_rows=2", "shard_rows=4", "--workers", "0")
_FILTERS = ("filters.min_side=64", "filters.min_clarity_percentile=null")
_ASK = ("prompts.kind=endpoint", "prompts.endpoint.model=tiny", "prompts.endpoint.concurrency=1")
ASKED = ("data", "validation", "people", "validation/asked", "--count", "6", *_FILTERS, *_ASK)
RULED = ("data", "validation", "people", "validation/ruled", "--count", "5", *_FILTERS)
REVIEW = ("data", "review", "validation/ruled")
STUDY = ("study", "serve", "study/faces")
LINKS = ("study", "links", "study/faces")
EXPORT = ("study", "export", "study/faces")
REPORT = ("study", "report", "study/faces")
EVALUATE = (
    *("evaluate", "clean=people", "--method", "spoilt=spoilt", "metrics=[strict,official,efficientnet]"),
    *("--reference", "people", "--cache", "evaluation/cache", "--out", "evaluation/out", "workers=1"),
)

RECIPE = """\
# recipes/lora-small.yaml, made tiny. In float32, as processors round bfloat16 differently.
model: small
data: people
out: training/run
steps: 28
batch_size: 2
resolution: 64
learning_rate: 3.0e-3
strategy: mpd
precision: fp32
checkpoint_every: 20
lora:
  rank: 1
  targets: attention+conv
view:
  crop: center
cache:
  latents: true
  folder: encodings
fairness:
  every: 3
schedule:
  name: cosine
  warmup_steps: 2
validation:
  every: 20
  count: 2
  share: 0.25
preview:
  count: 0
"""
PROMPTS = ("a woman in a red shirt waving", "a man in a blue shirt", "a man waving", "a woman in a green shirt")


def command(*arguments: object) -> list[str]:
    """`fairhuman ARGUMENTS` as a command of this Python."""
    return [sys.executable, "-m", "fairhuman.cli", *map(str, arguments)]


def environment() -> dict[str, str]:
    """For processes of the same package as here; one thread and no GPU, for the same bits each time on one machine."""
    source = str(Path(fairhuman.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "COLUMNS": "200"}


def age(folder: Path) -> None:
    """Give all files of a source the times that they had when the builds were begun; a checkout gives them others."""
    for path in folder.rglob("*"):
        os.utime(path, (MODIFIED, MODIFIED))


def replace_in(path: Path, old: str, new: str) -> None:
    """Replace a text in a file that holds it."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path} doesn't hold {old}"
    path.write_text(text.replace(old, new), encoding="utf-8")


def lines(path: Path) -> int:
    """Whole lines of a file, 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def built_rows(folder: Path) -> list[dict[str, Any]]:
    """What a built data set says of its pictures."""
    columns = ["key", "width", "height", "caption", "faces", "hands", "persons", "person_by"]
    rows: list[dict[str, Any]] = []
    for path in sorted((folder / "data").glob("*.parquet")):
        rows += pyarrow.parquet.read_table(path, columns=columns).to_pylist()
    return rows


@contextmanager
def served(*arguments: object, cwd: Path | None = None) -> Iterator[str]:
    """Serve by a command of the package with `--port 0`; gives the address, and ends it as Ctrl-C does."""
    process = subprocess.Popen(
        command(*arguments, "--port", 0), cwd=cwd, env=environment(), stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        said = ""
        try:
            for line in process.stdout:
                said += line
                if "http://127.0.0.1:" in line:
                    yield line[line.index("http://") :].split()[0].rstrip("/")
                    break
            else:
                raise AssertionError(f"{arguments} ended without an address: {said}")
        finally:
            process.send_signal(signal.SIGINT)
            process.stdout.read()


def fetch(url: str, body: object = None, token: str = "", form: bool = False) -> str:
    """The answer to a request that a page of the server would make; posted where there is a body or a form."""
    site = "/".join(url.split("/")[:3])
    headers = {"Origin": site, "X-Review-Token": token}
    content = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        content = json.dumps(body).encode()
    elif form:
        content = b""
    with urllib.request.urlopen(urllib.request.Request(url, content, headers), timeout=60) as answer:
        return str(answer.read().decode())


class Reviewer:
    """One person's page of a served review."""

    def __init__(self, address: str, name: str) -> None:
        self._address, self._name = address, name
        page = fetch(f"{address}/review?name={name}")
        self._token = page.partition('data-token="')[2].partition('"')[0]

    def ask(self, what: str, **values: object) -> dict[str, Any]:
        """`work`, `decisions` or `undo`; what there is to do then."""
        body = {"reviewer": self._name, **values}
        answer: dict[str, Any] = json.loads(fetch(f"{self._address}/api/{what}", body, self._token))
        return answer


def participant_tokens(links: Path) -> list[str]:
    """The secret at the end of each link in what `study links` writes."""
    return [row.rpartition("/")[2] for row in links.read_text(encoding="utf-8").splitlines()[1:]]


def answer_trial(root: str, number: int, trial: int, question: str, choice: int | None) -> None:
    """Send an answer from a participant's page, whose address is `root`."""
    body = {"key": f"answer-{number:032d}", "trial": trial, "question": question, "choice": choice, "seconds": 2.5}
    fetch(f"{root}/api/answers", body)


@contextmanager
def language_model(text: str, answers: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """An OpenAI-compatible server; gives its base URL and the list of what it has answered.

    Args:
        text: its answer to everything.
        answers: how many it gives; whoever asks for more waits until the server ends. None: any number.
    """
    given: list[str] = []
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if answers is not None and len(given) >= answers:
                ended.wait()
                return
            given.append(text)
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            content = json.dumps({"id": "1", "object": "chat.completion", "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", given
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def main() -> None:
    """Make everything in a folder of its own, and put it in the place of what is here."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        os.chdir(work)
        make_people(work)
        make_training(work)
        make_build(work)
        make_validation(work)
        make_study(work)
        make_evaluation(work)
        for folder in ("people", "spoilt", "training", "build", "validation", "study", "evaluation"):
            shutil.rmtree(HERE / folder, ignore_errors=True)
            shutil.copytree(work / folder, HERE / folder)
    for path in HERE.rglob("*"):
        if path.is_file():
            assert name.encode() not in path.read_bytes(), f"{path} names {name}"


def make_people(work: Path) -> None:
    """The pictures that all else is made of: rendered people, and the same ones with spoilt faces and hands."""
    for name, degraded in (("people", 0), ("spoilt", 1)):
        run("synth", name, "--count", 8, "--size", 128, "--seed", 3, "--degraded", degraded)
        age(work / name)


def make_training(work: Path) -> None:
    """A run killed in step 23 or later, whose checkpoint is of step 20; and how the same run ends where it isn't."""
    folder = work / "training"
    folder.mkdir()
    (folder / "lora.yaml").write_text(RECIPE, encoding="utf-8")
    whole = folder / "whole"
    run(*TRAIN, "out=training/whole")
    run_in = folder / "run"
    kill_when(lambda: lines(run_in / "metrics.jsonl") >= 22, *TRAIN)
    assert [path.name for path in (run_in / "checkpoints").iterdir()] == ["step-0000020"]
    keep(run_in, "checkpoints", "metrics.jsonl", "recipe.yaml", "validation.jsonl")
    ended = folder / "ended"
    ended.mkdir()
    for path in ("metrics.jsonl", "validation.jsonl", "lora/pytorch_lora_weights.safetensors"):
        shutil.copy(whole / path, ended)
    shutil.copytree(whole / "lora", work / "lora")  # for the study's pictures
    shutil.rmtree(whole)


def make_build(work: Path) -> None:
    """A build that was killed when half of the pictures had been looked at by the detectors; and a whole one's report.

    `source.json` holds the absolute path of the source.
    """
    folder = work / "build"
    run(*(word.replace("build/out", "build/whole") for word in BUILD))
    kill_when(lambda: len(list((folder / "out" / "tiers").glob("detect-*/0*.parquet"))) >= 2, *BUILD)
    (checked,) = (folder / "out" / "tiers").glob("check-*")
    assert len(list(checked.glob("*.parquet"))) == 4
    assert not (folder / "out" / "data").exists()
    (folder / "ended").mkdir()
    shutil.move(folder / "whole" / "report.json", folder / "ended" / "report.json")
    rows = built_rows(folder / "whole")
    (folder / "ended" / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder / "whole")
    (folder / "out" / ".lock").unlink()
    replace_in(folder / "out" / "source.json", str(work), PLACE)


def make_validation(work: Path) -> None:
    """A set that was killed when a model had written four of six prompts; a whole one of which two are reviewed."""
    folder = work / "validation"
    journal = folder / ".asked.work" / "prompts.jsonl"
    with language_model("A person who waves, asked at first", answers=4) as (url, _):
        kill_when(lambda: lines(journal) == 4, *ASKED, f"prompts.endpoint.base_url={url}")
        replace_in(journal.with_name("begun.json"), url, PLACE)
    journal.with_name("lock").unlink()
    run(*RULED)
    with served(*REVIEW) as address:
        reviewer = Reviewer(address, "Ada")
        todo = reviewer.ask("work")
        for decision in (
            {"action": "keep", "prompt": "A person, by hand"},
            {"action": "drop", "reason": "anatomy"},
            {"action": "keep"},
        ):
            todo = reviewer.ask("decisions", key=todo["pictures"][0]["key"], **decision)
        reviewer.ask("undo")
    settle(folder / "ruled" / "review.sqlite")
    run(*REVIEW, "--apply")
    settle(folder / "ruled" / "review.sqlite")
    (folder / "ruled" / "report.html").unlink()
    (folder / "ended").mkdir()
    for name in ("review.json", "reviewed.jsonl"):
        shutil.move(folder / "ruled" / name, folder / "ended" / name)


def make_study(work: Path) -> None:
    """A study of pictures by the small model, with four answers of one participant and two of another."""
    folder = work / "study"
    (work / "prompts.txt").write_text("\n".join(PROMPTS) + "\n", encoding="utf-8")
    draw = ("--prompts", "prompts.txt", "--steps", 8, "--guidance", 3, "--height", 64, "--width", 64)
    run("sample", "samples/base", *draw)
    run("sample", "samples/lora", *draw, "--lora", "lora")
    methods = ("--method", "base=samples/base", "--method", "lora=samples/lora")
    run("study", "create", "study/faces", *methods, "--pairs", 3, "--participants", 2, "--checks", 1)
    (folder / "ended").mkdir()
    run(*LINKS, "--out", "study/ended/links.csv")
    tokens = participant_tokens(folder / "ended" / "links.csv")
    with served(*STUDY) as address:
        for token, count in zip(tokens, (4, 2), strict=True):
            root = f"{address}/p/{token}"
            fetch(f"{root}/consent", form=True)
            for number in range(count):
                question = ("overall", "regional")[number % 2]
                answer_trial(root, number, number // 2, question, (0, 1, None, 1)[number])
    settle(folder / "faces" / "study.sqlite")
    for path in (*folder.glob(".*.lock"), *(folder / "faces").glob(".*.lock")):
        path.unlink()
    run(*EXPORT, "study/ended/answers.csv")
    run(*REPORT, "--out", "study/ended")
    settle(folder / "faces" / "study.sqlite")
    keep(folder / "ended", "answers.csv", "links.csv", "results.json")


def make_evaluation(work: Path) -> None:
    """An evaluation of the spoilt people against the others, with what was found out about each picture."""
    run(*EVALUATE)
    keep(work / "evaluation" / "out", "metrics.json")


def run(*arguments: object) -> None:
    """Run a command of the package to its end."""
    subprocess.run(command(*arguments), env=environment(), timeout=DEADLINE, check=True)


def kill_when(enough: Callable[[], bool], *arguments: object) -> None:
    """Start a command of the package and kill it in the middle of its work, so that it can't put anything in order."""
    process = subprocess.Popen(command(*arguments), env=environment(), start_new_session=True)
    started = time.monotonic()
    while not enough():
        assert process.poll() is None, f"{arguments} ended by itself"
        assert time.monotonic() < started + DEADLINE, arguments
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def keep(folder: Path, *names: str) -> None:
    """Remove what nobody needs who goes on."""
    for path in folder.iterdir():
        if path.name not in names:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def settle(database: Path) -> None:
    """Bring what SQLite keeps beside its file into it."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert not [path for path in database.parent.iterdir() if path.name.startswith(f"{database.name}-")]


if __name__ == "__main__":
    main()
