"""The recipe of the paper's training set, run on small samples of its two sources."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline import detect as detect_tier
from fairhuman.data.pipeline.run import Workers, build_dataset
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError
from fairhuman.record import Box, HumanRecord
from fairhuman.regions.settings import MaskSettings
from fairhuman.regions.transforms import JointTransform
from helpers import caption_server
from helpers.formats import SIZE, write_bodyhands, write_cosmicman
from helpers.marked_people import open_everywhere
from helpers.places import RECIPES
from helpers.tiny_depth import save_depth_model
from helpers.unguarded import Unguarded

DATA = RECIPES / "paper" / "data.yaml"
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """`build(source)` is the recipe with other models of its kinds: a face and a hand everywhere, and one caption."""
    monkeypatch.setattr(detect_tier, "open_detectors", open_everywhere)
    monkeypatch.setattr(detect_tier, "Guarded", Unguarded)

    def make(source: Path, *overrides: str) -> Path:
        with caption_server.endpoint(lambda _: caption_server.said("A man in a red hat.")) as (address, _):
            caption = {"kind": "endpoint", "endpoint": {"model": "vlm", "base_url": address}}
            recipe = config.load(BuildRecipe, DATA, ["caption={}", f"caption={json.dumps(caption)}", *overrides])
            build_dataset(source, tmp_path / f"{source.name}-built", recipe, Workers(0))
        return tmp_path / f"{source.name}-built"

    return make


def read(place: Path) -> list[HumanRecord]:
    return read_source(place, ("face", "hand", "person"), SourceSettings(), LoadReport())


def test_small_pictures_are_refused_before_any_work(tmp_path: Path, build: Build) -> None:
    write_bodyhands(tmp_path / "bodyhands", 2)
    with pytest.raises(DataError, match="shorter side below 1024 pixels"):
        build(tmp_path / "bodyhands")


def test_both_sources_get_faces_and_hands_and_a_switch_says_which_face_is_used(tmp_path: Path, build: Build) -> None:
    write_cosmicman(tmp_path / "cosmicman", 2)
    write_bodyhands(tmp_path / "bodyhands", 2)
    few = ("min_side=null", "condition={}", "condition={pose: none}")
    cosmicman, bodyhands = (read(build(tmp_path / name, *few)) for name in ("cosmicman", "bodyhands"))
    for record in (*cosmicman, *bodyhands):
        assert record.caption == "A man in a red hat."
        assert record.boxes["face"] == (Box(2, 3, 12, 13),)
        assert record.boxes["hand"]
    assert [set(record.masks) for record in cosmicman] == [{"face"}] * 2  # boxes stand beside the parsing map
    assert [set(record.masks) for record in bodyhands] == [set()] * 2
    assert len(bodyhands[0].boxes["hand"] or ()) == 2  # the source's own
    areas = {}
    for painted in (True, False):
        transform = JointTransform((SIZE, SIZE), flip_probability=0.0)
        dataset = PeopleDataset(cosmicman, ("face",), transform, MaskSettings(painted=painted))
        areas[painted] = float(dataset[0].masks_rhw[0].sum())
    assert areas[False] == pytest.approx(100)  # the box
    assert areas[True] > 110  # the face of the map


@pytest.mark.slow  # real detectors, and a depth model
def test_pose_and_depth_come_along(tmp_path: Path, build: Build) -> None:
    write_cosmicman(tmp_path / "cosmicman", 2)
    depth = json.dumps({"depth": {"model": save_depth_model(tmp_path / "depth")}})
    records = read(build(tmp_path / "cosmicman", "min_side=null", f"condition={depth}"))
    assert all(record.depth is not None for record in records)
