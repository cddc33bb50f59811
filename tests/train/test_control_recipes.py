"""The recipes of control say what the paper's runs were; the small ones make networks that follow a pose."""

from pathlib import Path

import numpy as np
import pytest
from diffusers import StableDiffusionXLPipeline

from fairhuman import config
from fairhuman.data.condition.people import PersonPose, people_from_source, person_from_mediapipe
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.detect.pose import PoseDetector
from fairhuman.detect.scale import enlarge, scale_back
from fairhuman.evaluate.metrics.pose_agreement import pose_agreement
from fairhuman.generate.control_inputs import ControlInputs
from fairhuman.generate.guide import ActiveControl
from fairhuman.generate.sample import sample
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.registry import CONTROLS
from fairhuman.models.sdxl import load_pipeline
from fairhuman.record import HumanRecord
from fairhuman.stats.bootstrap import ratio_difference
from fairhuman.synth.people import write_people
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from helpers.places import RECIPES

KINDS = ("controlnet", "t2i_adapter")
SIZE = 128
STEPS = {"controlnet": 400, "t2i_adapter": 1200}  # by which they follow by a margin


@pytest.mark.parametrize("kind", KINDS)
def test_the_papers_run(kind: str) -> None:
    paper = config.load(TrainRecipe, RECIPES / f"{kind.replace('_', '-')}-sdxl.yaml")
    assert (paper.kind, paper.steps, paper.learning_rate, paper.size) == (kind, 60_000, 1e-5, (1024, 1024))
    assert (paper.optimizer.name, paper.strategy) == ("adam", "mpd")
    assert paper.control is not None
    assert paper.control.condition_dropout == 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_the_small_run_needs_nothing_that_does_not_ship(kind: str) -> None:
    small = config.load(TrainRecipe, RECIPES / f"{kind.replace('_', '-')}-small.yaml")
    assert (small.kind, small.model, small.size) == (kind, "small", (SIZE, SIZE))


def people_of(folder: Path, count: int, seed: int) -> list[HumanRecord]:
    write_people(folder, SynthSettings(count=count, size=SIZE, seed=seed))
    return read_source(folder, (), SourceSettings(), LoadReport())


def agreements(
    pipeline: StableDiffusionXLPipeline,
    guides: list[ActiveControl],
    records: list[HumanRecord],
    shown: list[HumanRecord],
) -> tuple[np.ndarray, np.ndarray]:
    """Tops and bottoms of OKS: each record's pose, and a picture drawn for its caption and the pose shown."""
    settings = SampleSettings(steps=10, guidance=2.5, seed=3, batch_size=8)
    asked = ControlInputs({"pose": shown}) if guides else None
    values = []
    with PoseDetector() as detector:
        pictures = sample(pipeline, [one.caption for one in records], settings, guides=guides, asked=asked)
        for picture, record in zip(pictures, records, strict=True):
            found = person_in(detector, np.asarray(picture.image))
            assert isinstance(record.pose, list)
            body = None if found is None else found.body
            values.append(pose_agreement(people_from_source(record.pose), body, (SIZE, SIZE)))
    return np.array([value or 0.0 for value in values]), np.array([float(value is not None) for value in values])


def person_in(detector: PoseDetector, image: np.ndarray) -> PersonPose | None:
    larger, factor = enlarge(image, 4)
    people = [scale_back(one, factor) for one in detector.detect(larger)]
    if not people or people[0].landmarks_n3 is None:
        return None
    points = np.array(people[0].landmarks_n3)
    points[:, 2] = 1.0
    return person_from_mediapipe(points)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_network_trained_on_synthetic_people_follows_their_poses(tmp_path: Path, kind: str) -> None:
    """Above samples without control, and above samples that were shown the pose of somebody else."""
    people_of(tmp_path / "people", 1024, seed=1)
    overrides = [f"data={tmp_path / 'people'}", f"out={tmp_path / 'run'}", "preview.count=0", "validation.every=0"]
    overrides.append(f"steps={STEPS[kind]}")
    path = RECIPES / f"{kind.replace('_', '-')}-small.yaml"
    assert train(config.load(TrainRecipe, path, overrides)).finished
    others = people_of(tmp_path / "others", 48, seed=2)
    pipeline = load_pipeline("small")
    guides = [ActiveControl(CONTROLS[kind].load(str(tmp_path / "run" / kind), pipeline, None))]
    own = agreements(pipeline, guides, others, others)
    shuffled = agreements(pipeline, guides, others, [*others[1:], others[0]])
    free = agreements(pipeline, [], others, others)
    for name, worse in (("shuffled", shuffled), ("free", free)):
        gain = ratio_difference(worse, own)
        assert gain.value > 0.1, (name, gain)
        assert gain.low > 0.0, (name, gain)
