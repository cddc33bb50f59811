"""MoLE in the training loop: the direction, resuming after a crash, its recipes, sampling with the result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fairhuman import config
from fairhuman.cli.watch import Previews
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import collate
from fairhuman.errors import RecipeError
from fairhuman.models.mole import MOLE_FILE, MoleModel
from fairhuman.models.settings import MoleSettings
from fairhuman.report.training import write_training_report
from fairhuman.train.data import RunData, load_data
from fairhuman.train.loop import train
from fairhuman.train.model import build_model, load_pipeline
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import Objectives
from helpers.places import RECIPES
from helpers.runs import Crash, check_direction, metrics_without_times

MakeRecipe = Callable[..., TrainRecipe]
Typed = Callable[..., tuple[int, str, str]]
STAGES = ("face", "hand", "gates")
RANK = 3
ALPHAS = {"face": 2.0, "hand": 4.0}  # small, so that no gate is saturated
stages = pytest.mark.parametrize("stage", STAGES)


def shake(model: MoleModel, seed: int) -> None:
    """Perturb the weights: at the start B is zero, and so are most gradients."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.trainable_parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(scope="session")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained expert of each stage."""
    folder = tmp_path_factory.mktemp("experts")
    for number, stage in enumerate(("face", "hand")):
        settings = MoleSettings.model_validate({"stage": stage, "rank": RANK, "alphas": ALPHAS})
        model = MoleModel(load_pipeline("small-untrained"), settings, seed=number)
        shake(model, number)
        model.save(folder / stage)
    return folder


@pytest.fixture
def make(make_recipe: MakeRecipe, experts: Path) -> MakeRecipe:
    def mole(out: str, stage: str, **values: Any) -> TrainRecipe:
        starts = {f"start_{name}": str(experts / name) for name in ("face", "hand")} if stage == "gates" else {}
        section = {"stage": stage, "rank": RANK, "alphas": ALPHAS, **starts}
        return make_recipe(out, **{"kind": "mole", "model": "small-untrained", "mole": section, **values})

    return mole


def parts(recipe: TrainRecipe) -> tuple[Objectives, RunData]:
    data = load_data(recipe, LoadReport())
    model = build_model(recipe, torch.device("cpu"))
    assert isinstance(model, MoleModel)
    shake(model, 3)
    return Objectives(model, recipe.regions, recipe.noise, recipe.seed), data


@stages
def test_the_direction_is_that_of_the_true_gram_matrix(make: MakeRecipe, stage: str) -> None:
    objectives, data = parts(make("run", stage))
    check_direction(objectives, collate([data.train[position] for position in range(3)]), unlike_plain=0.9999)


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        pytest.param("gates", {"accumulate": 2, "ema": {"decay": 0.9}}, marks=pytest.mark.slow),
        pytest.param("gates", {"precision": "bf16", "gradient_checkpointing": True}, marks=pytest.mark.slow),
        ("gates", {"fairness": {"mode": "output", "every": 2, "limit": -1.0}}),
        pytest.param("hand", {}, marks=pytest.mark.slow),
    ],
)
def test_a_crashed_and_resumed_run_equals_an_uninterrupted_one(
    make: MakeRecipe, stage: str, values: dict[str, Any]
) -> None:
    whole, broken = (make(name, stage, **values) for name in ("whole", "broken"))
    train(whole)
    with pytest.raises(RuntimeError, match="crash"):
        train(broken, [Crash(3)])
    assert train(broken).finished
    ours, theirs = ((recipe.out / "mole" / MOLE_FILE).read_bytes() for recipe in (broken, whole))
    assert ours == theirs
    assert metrics_without_times(broken.out) == metrics_without_times(whole.out)


def test_its_own_loss_is_that_of_whole_pictures_and_its_report_is_written(make: MakeRecipe) -> None:
    held_out = {"every": 1, "share": 0.3}
    recipe = make(
        "run",
        "face",
        steps=1,
        strategy="ls",
        regions={"names": []},
        validation=held_out,
        preview={"count": 1, "steps": 2},
        learning_rate=0.1,
    )
    assert train(recipe, [Previews()]).finished
    [row] = [json.loads(line) for line in (recipe.out / "metrics.jsonl").read_text().splitlines()]
    assert [name for name in row if name.startswith("loss/")] == ["loss/global"]
    index = json.loads((recipe.out / "previews" / "index.json").read_text())
    before, after = (recipe.out / index["rows"][0]["steps"][step]["caption"] for step in ("0", "1"))
    assert before.read_bytes() != after.read_bytes()
    assert write_training_report(recipe.out).is_file()


def test_the_three_stages_follow_each_other_and_the_result_draws(
    make: MakeRecipe, tmp_path: Path, typed: Typed
) -> None:
    runs = {stage: train(make(stage, stage, steps=1)).recipe.out / "mole" for stage in ("face", "hand")}
    starts = {f"start_{stage}": str(folder) for stage, folder in runs.items()}
    gates = train(make("gates", "gates", steps=1, mole={"stage": "gates", "rank": RANK, "alphas": ALPHAS, **starts}))
    file = gates.recipe.out / "mole" / MOLE_FILE
    options = ("--prompt", "a hat", "--height", 32, "--width", 32, "--steps", 2, "--model", "small-untrained")
    code, _, error = typed("sample", tmp_path / "out", *options, "--mole", file.parent)
    assert code == 0, error
    with Image.open(tmp_path / "out" / "00000-00.png") as picture:
        assert picture.info["mole"] == f"{file} (gates)"
    for wrong, exit_code, message in (
        (("--mole", file, "--fuse"), 2, "a MoLE can't be fused"),
        (("--mole", file, "--lora", file), 2, "--mole and --lora"),
        (("--mole", tmp_path / "none"), 1, "found none"),
        (("--lora", file), 1, "is a MoLE, whose gates can't be fused"),
    ):
        code, _, error = typed("sample", tmp_path / "two", *options, *wrong)
        assert (code, message in error) == (exit_code, True), error


def test_a_wrong_section_is_named(make: MakeRecipe) -> None:
    for section, message in (
        ({"stage": "gates"}, "start_face needs the file of stage face"),
        ({"stage": "hand", "start_hand": "a"}, "start_hand applies to stage gates only"),
        ({"stages": "hand"}, "stage"),
    ):
        with pytest.raises(RecipeError, match=message):
            make("run", "face", mole=section)


@pytest.mark.parametrize(
    ("stage", "steps", "rate"), [("face", 30_000, 2e-5), ("hand", 60_000, 1e-5), ("gates", 50_000, 1e-5)]
)
def test_the_papers_runs(stage: str, steps: int, rate: float) -> None:
    paper = config.load(TrainRecipe, RECIPES / f"mole-sdxl-{stage}.yaml")
    assert (paper.kind, paper.mole.stage, paper.steps, paper.learning_rate) == ("mole", stage, steps, rate)
    assert (paper.mole.rank, paper.mole.alphas.face, paper.mole.alphas.hand) == (256, 64, 128)
    assert (paper.strategy, paper.regions.objectives, paper.optimizer.name) == ("ls", ("global",), "adam")


def test_a_dry_run_of_gates_says_which_experts_are_missing(
    typed: Typed, tmp_path: Path, experts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("train", RECIPES / "mole-small-gates.yaml", f"mole.start_hand={experts / 'hand'}", "--dry-run")
    code, said, _ = typed(*options)
    assert code == 1
    assert "missing mole.start_face: runs/mole-small/face/mole: doesn't exist yet" in said
    assert "mole.start_hand:" not in said.partition("\n\n")[2]


@pytest.mark.parametrize("size", ["small", "sdxl"])
def test_the_runs_of_a_size_feed_each_other(size: str) -> None:
    face, hand, gates = (config.load(TrainRecipe, RECIPES / f"mole-{size}-{stage}.yaml") for stage in STAGES)
    assert gates.mole.starts == {"face": face.out / "mole", "hand": hand.out / "mole"}
    assert face.mole.alphas == hand.mole.alphas == gates.mole.alphas
    assert face.mole.rank == hand.mole.rank == gates.mole.rank
    assert len({face.out, hand.out, gates.out}) == 3
