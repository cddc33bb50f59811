"""Work that an earlier version of the code has begun goes on with this one.

`begun/README.md` says what was begun, and how. Files are looked at as they lie on the disk, the package is spoken to
through its command line and its web pages: its modules may be laid out in any way.
"""

import io
import itertools
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import fairhuman
from begun.make import (
    ASKED,
    BUILD,
    COMMIT,
    EVALUATE,
    EXPORT,
    HERE,
    LINKS,
    PLACE,
    REPORT,
    REVIEW,
    RULED,
    STUDY,
    TRAIN,
    Reviewer,
    age,
    answer_trial,
    built_rows,
    command,
    environment,
    fetch,
    language_model,
    participant_tokens,
    replace_in,
    served,
)
from fairhuman.evaluate.networks.efficientnet import TITLE
from helpers.official import HAS_MEDIAPIPE
from helpers.runs import read_lines

ROOT = Path(__file__).parents[1]
LORA = "pytorch_lora_weights.safetensors"
TIMES = ("images_per_s", "waiting")  # no two runs have the same ones
OBJECTIVES = ("global", "face", "hand")
PARTS = ("face", "hand")  # detectors of today agree with those of 7d25134 up to rounding
CROPS = {f"{part} {TITLE}" for part in PARTS}  # distances that evaluations of 7d25134 did not have
# what 7d25134 didn't write of a step or an evaluation
SHARES = [f"{what}/{name}" for what in ("share", "rate") for name in OBJECTIVES]
LATER = ("whole/face", "whole/hand", "peak_memory_mib", "records", *SHARES)

Typed = Callable[..., tuple[int, str, str]]
Run = Callable[..., str]


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`begun("study")` copies what was begun, and the pictures that it was made of, to where the test runs from now."""

    def copy(name: str) -> Path:
        for each in ("people", "spoilt", name):
            shutil.copytree(HERE / each, tmp_path / each)
            age(tmp_path / each)
        monkeypatch.chdir(tmp_path)
        return tmp_path / name

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return copy


@pytest.fixture
def run(typed: Typed) -> Run:
    """`run("train", "recipe.yaml")` runs a command here, which must succeed; what it prints."""

    def succeed(*arguments: object) -> str:
        code, output, errors = typed(*arguments)
        assert code == 0, output + errors
        return output

    return succeed


def without_times(path: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in (*TIMES, *LATER)} for row in read_lines(path)]


def with_own_rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Steps of 7d25134, which wrote the rate of the next one, each but the first with its own."""
    return [rows[0], *({**row, "lr": before["lr"]} for before, row in itertools.pairwise(rows))]


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of each file, by its path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def close(found: object, expected: object, tolerance: float) -> bool:
    """Whether two things of JSON are the same up to the rounding of their numbers."""
    if isinstance(expected, dict):
        assert isinstance(found, dict)
        same = found.keys() == expected.keys()
        return same and all(close(found[name], value, tolerance) for name, value in expected.items())
    if isinstance(expected, list):
        assert isinstance(found, list)
        return len(found) == len(expected) and all(
            close(one, other, tolerance) for one, other in zip(found, expected, strict=True)
        )
    if isinstance(expected, float) and isinstance(found, float):
        return found == pytest.approx(expected, rel=tolerance, abs=tolerance)
    return found == expected


def test_a_run_goes_on_at_its_checkpoint_and_ends_as_if_it_had_not_been_killed(
    begun: Callable[[str], Path], run: Run
) -> None:
    folder = begun("training")
    before = read_lines(folder / "run" / "metrics.jsonl")
    (checkpoint,) = (folder / "run" / "checkpoints").iterdir()
    trained = load_file(checkpoint / "trainable.safetensors")
    assert checkpoint.name == "step-0000020"
    assert len(before) > 20
    run(*TRAIN)
    ended, whole = folder / "run", folder / "ended"
    assert read_lines(ended / "metrics.jsonl")[:20] == before[:20]  # with their times: these steps weren't taken again
    assert close(without_times(ended / "validation.jsonl"), without_times(whole / "validation.jsonl"), tolerance=1e-3)
    steps, expected_steps = without_times(ended / "metrics.jsonl"), without_times(whole / "metrics.jsonl")
    assert close(steps, [*expected_steps[:20], *with_own_rates(expected_steps)[20:]], tolerance=1e-3)
    found, expected = load_file(ended / "lora" / LORA), load_file(whole / LORA)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-3, atol=5e-6), name
    moved = distance(expected, {f"unet.{name.replace('.default', '')}": tensor for name, tensor in trained.items()})
    assert distance(found, expected) < 0.005 * moved  # the steps since the checkpoint did something


def test_a_recipe_that_has_changed_says_how_the_run_goes_on(
    begun: Callable[[str], Path], typed: Typed, run: Run
) -> None:
    folder = begun("training")
    recipe = folder / "lora.yaml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("  crop: center\n", "  crop: center\n  bucket_aspect: auto\n"), encoding="utf-8")
    code, _, errors = typed(*TRAIN)
    assert code == 2
    said = " ".join(errors.split())
    assert "training/run holds a run with other settings" in said
    assert "view.bucket_aspect: None there, 'auto' now" in said
    assert "`fairhuman train training/run/recipe.yaml` goes on with the run's own settings" in said
    run("train", "training/run/recipe.yaml")
    found, expected = (read_lines(folder / name / "metrics.jsonl") for name in ("run", "ended"))
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    assert found[-1]["loss/face"] == pytest.approx(expected[-1]["loss/face"], rel=1e-3)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    return float(torch.stack([(one[name] - tensor).square().sum() for name, tensor in other.items()]).sum().sqrt())


def test_a_build_keeps_what_was_looked_at_and_is_completed(begun: Callable[[str], Path], run: Run) -> None:
    folder = begun("build")
    out = folder / "out"
    replace_in(out / "source.json", PLACE, str(folder.parent.resolve()))
    before = contents(out)
    finished = {path: content for path, content in before.items() if path.endswith(".parquet")}
    assert len(finished) == 4 + 4 + 2  # of the manifest, checked, looked at by detectors
    run(*BUILD)
    after = contents(out)
    assert {path: after.get(path) for path in finished} == finished
    tables = [path.name.split("-")[0] for path in sorted((out / "tiers").iterdir())]
    assert tables == ["caption", "check", "detect"]  # no second table of other settings
    assert len(list((out / "tiers").glob("detect-*/*.parquet"))) == 4
    assert built_rows(out) == json.loads((folder / "ended" / "rows.json").read_text())
    report, whole = (json.loads((path / "report.json").read_text()) for path in (out, folder / "ended"))
    for name in ("format", "kept", "funnel", "rejected", "files"):
        assert report[name] == whole[name], name


def test_a_model_is_asked_for_the_prompts_that_it_had_not_written(begun: Callable[[str], Path], run: Run) -> None:
    folder = begun("validation")
    written = read_lines(folder / ".asked.work" / "prompts.jsonl")
    with language_model("A person who waves, asked later") as (url, given):
        replace_in(folder / ".asked.work" / "begun.json", PLACE, url)
        of_this_version(folder / ".asked.work" / "begun.json")
        run(*ASKED, f"prompts.endpoint.base_url={url}")
    assert len(given) == 6 - len(written) == 2
    prompts = {row["key"]: row["caption"] for row in read_lines(folder / "asked" / "metadata.jsonl")}
    assert {key: text for key, text in prompts.items() if text not in given} == {
        row["key"]: row["text"] for row in written
    }
    assert not (folder / ".asked.work").exists()


def test_a_review_still_has_its_decisions_and_goes_on(begun: Callable[[str], Path], run: Run) -> None:
    folder = begun("validation")
    of_this_version(folder / "ruled" / "manifest.json")
    manifest = (folder / "ruled" / "manifest.json").read_bytes()
    run(*RULED)  # which is finished
    assert (folder / "ruled" / "manifest.json").read_bytes() == manifest
    run(*REVIEW, "--apply")
    reviewed = read_lines(folder / "ended" / "reviewed.jsonl")
    assert read_lines(folder / "ruled" / "reviewed.jsonl") == reviewed
    older = json.loads((folder / "ended" / "review.json").read_text())
    assert json.loads((folder / "ruled" / "review.json").read_text()) == {**older, "last_event": 4}
    keys = [row["key"] for row in read_lines(folder / "ruled" / "metadata.jsonl")]
    with served(*REVIEW) as address:
        ada = Reviewer(address, "Ada")
        work = ada.ask("work")
        assert (work["total"], work["done"], work["own"]) == (5, 2, 2)
        assert work["pictures"][0]["key"] == keys[2]  # of the decision that was taken back
        assert ada.ask("decisions", key=keys[2], action="keep")["done"] == 3
        assert ada.ask("undo")["undone"]["key"] == keys[2]
        assert ada.ask("undo")["undone"]["key"] == keys[1]  # of one that was made then
    run(*REVIEW, "--apply")
    assert read_lines(folder / "ruled" / "reviewed.jsonl") == reviewed
    assert json.loads((folder / "ruled" / "review.json").read_text())["counts"]["done"] == 1


def of_this_version(path: Path) -> None:
    """A set belongs to a version of the package; here the files are in question, not their version's number."""
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "version": fairhuman.__version__}), encoding="utf-8")


def test_a_study_still_has_its_answers_and_takes_more(begun: Callable[[str], Path], run: Run) -> None:
    folder = begun("study")
    ended = folder / "ended"
    run(*EXPORT, folder / "answers.csv")
    given = (ended / "answers.csv").read_text()
    assert (folder / "answers.csv").read_text() == given
    run(*REPORT, "--out", folder / "report")
    found, expected = (json.loads((path / "results.json").read_text()) for path in (folder / "report", ended))
    for results in (found, expected):
        for person in results["participants"]:
            person["reasons"] = len(person["reasons"])  # sentences
    # What this version adds: nothing that changes a number of an older study, whose rules don't have the last one.
    assert [person.pop("overclaimed") for person in found["participants"]] == [0, 0]
    assert [len(person.pop("broken")) for person in found["participants"]] == [0, 1]
    assert found["settings"]["exclude"].pop("max_overclaimed") is None
    assert (found["settings"].pop("equalize"), found["settings"].pop("place_minutes")) == (False, 60.0)
    assert found["settings"].pop("ranks") is False
    assert [found[who][name].pop("ranks") for who in ("everybody", "kept") for name in found[who]] == [{}] * 4
    questions = [question for who in ("everybody", "kept") for question in found[who].values()]
    meetings = [meeting for question in questions for meeting in question["meetings"]]
    assert [meeting.pop("joint") for meeting in meetings] == [meeting["share"] for meeting in meetings]  # two methods
    assert close(found, expected, tolerance=1e-6)
    assert (folder / "report" / "report.html").stat().st_size > 1000
    run(*LINKS, "--out", folder / "links.csv")
    assert (folder / "links.csv").read_text() == (ended / "links.csv").read_text()
    second = participant_tokens(folder / "links.csv")[1]
    with served(*STUDY) as address:
        root = f"{address}/p/{second}"
        trials = json.loads(fetch(f"{root}/api/trials"))
        assert trials["answers"] == [
            {"trial": 0, "question": "overall", "choice": 0},
            {"trial": 0, "question": "regional", "choice": 1},
        ]
        assert len(trials["trials"]) == 4
        answer_trial(root, number=1, trial=0, question="regional", choice=1)  # sent again, it is known
        answer_trial(root, number=2, trial=1, question="overall", choice=None)
    run(*EXPORT, folder / "more.csv")
    assert (folder / "more.csv").read_text().startswith(given)
    assert len((folder / "more.csv").read_text().splitlines()) == len(given.splitlines()) + 1


@pytest.mark.slow
def test_an_evaluation_takes_what_was_found_out_from_its_cache(begun: Callable[[str], Path], run: Run) -> None:
    folder = begun("evaluation")
    before = contents(folder / "cache")
    whole = json.loads((folder / "out" / "metrics.json").read_text())
    assert {path.split("/")[0].split("-")[0] for path in before} == {"checked", "efficientnet", "findings", "official"}
    (folder / "out" / "metrics.json").unlink()
    run(*(word if HAS_MEDIAPIPE else word.replace("official,", "") for word in EVALUATE))
    after = contents(folder / "cache")  # whatever is computed is kept there
    assert {path: after.get(path) for path in before} == before
    looked = {"findings-1-mediapipe-0.10.21-litert-x4"}  # by other detectors than those of then
    looked |= {path.split("/")[0] for path in before if path.startswith("efficientnet")}  # at crops, too
    assert {path.split("/")[0] for path in after.keys() - before.keys()} == looked
    found = json.loads((folder / "out" / "metrics.json").read_text())
    assert {what.split("-")[0] for what in found["seconds_per_picture"]} == {"findings", "efficientnet"}
    crops = [row for table in ("metrics", "differences") for row in found[table] if row["name"] in CROPS]
    assert {row["name"] for row in crops} == CROPS, "measured now"
    assert len(whole["seconds_per_picture"]) == 5  # where nothing was known, all kinds of looks took time
    for table, strict in itertools.product(("metrics", "differences"), (True, False)):
        mine, theirs = (
            [
                row
                for row in numbers(one[table])
                if (HAS_MEDIAPIPE or "official" not in row["name"])
                and row["name"] not in CROPS
                and strict == any(part in row["name"] for part in PARTS)
            ]
            for one in (found, whole)
        )
        assert close(mine, theirs, tolerance=0.02 if strict else 1e-6), (table, strict)
    assert pyarrow.parquet.read_metadata(folder / "out" / "per_image.parquet").num_rows == 16


def numbers(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Results without the sentences that explain them, and without what the version of then didn't store."""
    left_out = ("what", "blind", "informing", "p_holm")  # which counts all differences; now there are more
    return [{name: value for name, value in one.items() if name not in left_out} for one in results]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "as_then"),
    [
        ((), ()),
        (
            (
                "precision=bf16",
                "strategy=nash",
                "fairness.mode=exact",
                "gradient_checkpointing=true",
                "cache.text=true",
            ),
            ("base.vae=rounded-vae",),
        ),
        (("strategy=alpha", "fairness.mode=tail", "ema.decay=0.9", "view.crop=random", "cache.latents=false"), ()),
        (
            ("strategy=uw", "accumulate=2", "optimizer.name=adamw", "lora.dropout=0.1", "schedule.name=constant"),
            ("fairness.uw_learning_rate=1e-3",),
        ),
    ],
    ids=["recipe", "exact", "tail", "weighting"],
)
def test_a_run_has_the_same_bits_as_with_the_earlier_code(
    settings: tuple[str, ...], as_then: tuple[str, ...], begun: Callable[[str], Path], tmp_path: Path
) -> None:
    """But for what was changed on purpose. `as_then` undoes two changes: the weights of the VAE aren't rounded to
    bfloat16 any more, and the learning rate of uncertainty weighting has another default. A third one is made in the
    earlier code, too: in bfloat16 a CPU takes fused attention."""
    begun("training")
    round_vae(tmp_path / "rounded-vae")
    earlier = tmp_path / "earlier"
    unpack(COMMIT, earlier)
    replace_in(earlier / "src/fairhuman/train/setup.py", "unet.set_attn_processor(AttnProcessor())", "unet")
    ended = {}
    for name, source, extra in (
        ("earlier", earlier / "src", ()),
        ("present", Path(fairhuman.__file__).parents[1], as_then),
    ):
        variables = {**environment(), "PYTHONPATH": str(source)}
        where = [sys.executable, "-c", "import fairhuman; print(fairhuman.__file__)"]
        printed = subprocess.run(where, env=variables, capture_output=True, text=True, check=True).stdout
        assert Path(printed.strip()).is_relative_to(source)
        own = (f"out={name}-run", f"cache.folder={name}-encodings", "steps=20", "checkpoint_every=10")
        typed = command(*TRAIN, *own, *settings, *extra)
        done = subprocess.run(typed, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        ended[name] = tmp_path / f"{name}-run"
    found, expected = (load_file(ended[name] / "lora" / LORA) for name in ("present", "earlier"))
    assert found.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []
    found_losses, expected_losses = (without_times(ended[name] / "validation.jsonl") for name in ("present", "earlier"))
    assert found_losses == expected_losses
    steps, expected_steps = (without_times(ended[name] / "metrics.jsonl") for name in ("present", "earlier"))
    assert steps == [{**expected_steps[0], "lr": steps[0]["lr"]}, *with_own_rates(expected_steps)[1:]]


def round_vae(folder: Path) -> None:
    """Copy the VAE of the small SDXL, its weights rounded to bfloat16."""
    (own,) = Path(fairhuman.__file__).parent.rglob("vae/diffusion_pytorch_model.safetensors")
    shutil.copytree(own.parent, folder)
    rounded = {name: tensor.bfloat16().float() for name, tensor in load_file(own).items()}
    save_file(rounded, folder / own.name, {"format": "pt"})


def unpack(commit: str, folder: Path) -> None:
    """Put the files of an earlier commit into a folder; the test is skipped where the history lacks it."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"needs commit {commit}, which isn't in this history: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 has none
        files.extractall(folder)
