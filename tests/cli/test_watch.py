"""Previews, the line of a step and the time left, as `fairhuman train` shows them."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fairhuman import config
from fairhuman.cli.watch import Previews, TimeLeft, describe, preview_rows
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.report.training import write_training_report
from fairhuman.train.data import load_data
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run, Watcher
from fairhuman.utils.display import Display
from helpers.figures import write_figures

Make = Callable[..., TrainRecipe]
PROMPTS = ("a woman waving", "two men")


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    write_figures(folder, 6, 64, seed=1)
    return folder


@pytest.fixture
def make(figures: Path, tmp_path: Path) -> Make:
    def recipe(out: str, **preview: Any) -> TrainRecipe:
        values: dict[str, Any] = {"data": str(figures), "out": str(tmp_path / out), "steps": 4, "resolution": 32}
        values |= {"lora": {"rank": 2}, "validation": {"every": 0}, "learning_rate": 1e-3}
        return config.build(TrainRecipe, {**values, "preview": {"count": 0, "steps": 3, **preview}})

    return recipe


def lora_bytes(recipe: TrainRecipe) -> bytes:
    return (recipe.out / "lora" / "pytorch_lora_weights.safetensors").read_bytes()


def rows(recipe: TrainRecipe) -> list[dict[str, Any]]:
    index = recipe.out / "previews" / "index.json"
    return json.loads(index.read_text(encoding="utf-8"))["rows"] if index.is_file() else []


class StopIn(Display, Watcher):
    """Requests a stop, as a signal does, in the preview of a step, before the first denoising step or after one."""

    def __init__(self, step: int, after: int) -> None:
        self.run: Run | None = None
        self.step, self.after = step, after

    def on_start(self, run: Run) -> None:
        self.run = run

    def progress(self, stage: str, done: int, total: int | None, text: str = "", left: float | None = None) -> None:
        assert stage == "previews: denoising steps"
        assert total == 2 * 3 + 1, "two batches of captions, one of photos that is denoised from the middle"
        if self.run is not None and self.run.step == self.step and done == self.after:
            self.run.stopped_by = 15


def test_prompts_of_ones_own_are_drawn_and_change_nothing(make: Make) -> None:
    plain, drawn = make("plain"), make("drawn", prompts=PROMPTS, every=2)
    train(plain)
    train(drawn, [Previews()])
    assert lora_bytes(drawn) == lora_bytes(plain)
    assert [(row["caption"], row["photo"], list(row["steps"])) for row in rows(drawn)] == [
        (prompt, None, ["0", "2", "4"]) for prompt in PROMPTS
    ]
    for row in rows(drawn):
        for files in row["steps"].values():
            assert list(files) == ["caption"]
            with Image.open(drawn.out / files["caption"]) as picture:
                assert picture.size == (32, 32)
    page = write_training_report(drawn.out).read_text(encoding="utf-8")
    assert all(prompt in page for prompt in PROMPTS)


def test_the_first_previews_can_wait_for_their_turn(make: Make) -> None:
    usual, waiting = make("usual", count=1, every=2), make("waiting", count=1, every=2, at_start=False)
    train(usual, [Previews()])
    train(waiting, [Previews()])
    assert [list(row["steps"]) for row in rows(usual)] == [["0", "2", "4"]]
    assert [list(row["steps"]) for row in rows(waiting)] == [["2", "4"]]
    assert lora_bytes(waiting) == lora_bytes(usual)
    for file in rows(waiting)[0]["steps"]["4"].values():
        assert (waiting.out / file).read_bytes() == (usual.out / file).read_bytes()
    page = write_training_report(waiting.out).read_text(encoding="utf-8")
    assert "<b>step 2</b>" in page
    assert "before (step" not in page
    end = make("end", count=1, at_start=False)
    train(end, [Previews()])
    assert "<p>Step 4 alone. Each photo" in write_training_report(end.out).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("step", "after"), [(0, 0), pytest.param(0, 2, marks=pytest.mark.slow), pytest.param(2, 1, marks=pytest.mark.slow)]
)
def test_a_signal_ends_previews_between_denoising_steps(make: Make, step: int, after: int) -> None:
    settings = {"count": 1, "prompts": PROMPTS[:1], "every": 2, "strength": 0.55}
    stopped, whole = make("stopped", **settings), make("whole", **settings)
    stop = StopIn(step, after)
    run = train(stopped, [stop, Previews(stop)])
    assert (run.step, run.stopped_by, run.finished) == (step, 15, False)
    assert [list(row["steps"]) for row in rows(stopped)] == ([["0"]] * 2 if step else [])
    saved = [path.name for path in (stopped.out / "checkpoints").glob("*")]
    assert saved == ([f"step-{step:07d}"] if step else []), "no step is lost"
    assert train(stopped, [Previews()]).finished
    train(whole, [Previews()])
    assert lora_bytes(stopped) == lora_bytes(whole)
    assert rows(stopped) == rows(whole)
    for row in rows(whole):
        for files in row["steps"].values():
            for file in files.values():
                assert (stopped.out / file).read_bytes() == (whole.out / file).read_bytes()


def test_a_finished_run_draws_nothing_again(make: Make) -> None:
    recipe = make("run", prompts=PROMPTS)
    train(recipe, [Previews()])
    times = {path: path.stat().st_mtime_ns for path in recipe.out.rglob("step-*/*.png")}
    assert len(times) == 4
    train(recipe, [Previews()])
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_the_line_of_a_step_begins_with_loss_and_speed() -> None:
    metrics = {"loss/global": 0.0612, "weight/global": 2.588, "images_per_s": 12.34, "loss/face": 0.15571}
    metrics |= {"weight/face": 0.221, "coverage/face": 1.0, "loss/hand": None, "weight/hand": None}
    assert describe(metrics, ("global", "face", "hand")) == (
        "loss 0.0612  12.3 pictures/s  global w 2.59  face 0.156 (w 0.22 in 100 %)  hand absent"
    )


def test_the_time_left_counts_previews(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    recipe = make("run", count=1, every=10).model_copy(update={"steps": 30})
    left = TimeLeft()
    left.start(0)
    now = 100.0 + 2.0  # a preview of 100 s, a step of 2 s
    assert left.after(1, 2.0, recipe) == pytest.approx(29 * 2.0 + 2 * 100.0 + 100.0)
    now += 8 * 2.0
    left._step, left._at = 9, now
    now += 2.0
    assert left.after(10, 2.0, recipe) == pytest.approx(20 * 2.0 + 2 * 100.0 + 100.0)
    now += 50.0 + 2.0  # the second preview was faster
    assert left.after(11, 2.0, recipe) == pytest.approx(19 * 2.0 + 1 * 50.0 + 100.0)


def test_the_time_left_counts_previews_of_the_end_that_none_at_the_start_has_shown(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    recipe = make("run", count=1, every=10, at_start=False).model_copy(update={"steps": 20})
    left = TimeLeft()
    left.start(0)
    for step in range(1, 11):
        now += 2.0
        assert left.after(step, 2.0, recipe) == pytest.approx((20 - step) * 2.0)
    now += 50.0 + 2.0
    assert left.after(11, 2.0, recipe) == pytest.approx(9 * 2.0 + 50.0)


def test_previews_are_of_the_records_captions(make: Make) -> None:
    """Also of pictures to train on, which are now and then shown without a caption."""
    recipe = config.build(TrainRecipe, {**make("run").model_dump(mode="json"), "view": {"caption_dropout": 1.0}})
    data = load_data(recipe, LoadReport()).train
    assert data[0].caption == ""
    shown = preview_rows(data, 4, seed=0)
    assert len(shown) == 4
    assert all(row.caption for row in shown)
    assert data[0].caption == ""


def test_a_loss_without_a_gradient_has_the_weight_0() -> None:
    """The prior's, while the LoRA changes nothing."""
    metrics = {"loss/global": 0.5, "weight/global": 1.0, "images_per_s": 2.0, "loss/prior": 0.0, "weight/prior": None}
    assert describe(metrics, ("global", "prior")).endswith("prior 0.000 (w 0.00)")
