"""Regions by words: tiny random models of the true classes, and the rules around them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fairhuman.detect.detection import Picture
from fairhuman.detect.found_region import FoundRegion, Mask
from fairhuman.detect.settings import WordsSettings
from fairhuman.detect.words import WordsFinder, pieces_of
from fairhuman.errors import ModelError
from fairhuman.record import Box
from helpers.tiny_finders import make_clipseg, make_grounding_dino, make_owlv2, make_sam, make_sam2
from helpers.tiny_pictures import picture

WORDS = {"shoes": "the shoes", "logo": "a brand logo", "hat": "hat"}
PICTURES = [np.asarray(picture(60, 40, 0)), np.asarray(picture(48, 64, 3))]
MAKERS = {
    "grounding_dino": make_grounding_dino,
    "owlv2": make_owlv2,
    "clipseg": make_clipseg,
    "sam": make_sam,
    "sam2": make_sam2,
}
Models = Callable[[str], str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    made: dict[str, Path] = {}

    def folder(name: str) -> str:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            MAKERS[name](made[name])
        return str(made[name])

    return folder


def find(model: str, outline: str | None, pictures: list[Picture], **settings: object) -> list[dict[str, FoundRegion]]:
    chosen = WordsSettings(model=model, outline=outline, device="cpu", **{"confidence": 0.01, **settings})
    with WordsFinder(chosen, WORDS) as finder:
        return finder.find(pictures, [list(WORDS)] * len(pictures))


def plain(found: list[dict[str, FoundRegion]]) -> list[dict[str, tuple[list[list[float]], bool]]]:
    """Rounded, since a batch is padded."""
    return [
        {
            name: (
                [
                    [round(x, 2) for x in (box.x0, box.y0, box.x1, box.y1)] + [round(box.score or 0.0, 4)]
                    for box in region.boxes
                ],
                region.mask_hw is not None,
            )
            for name, region in one.items()
        }
        for one in found
    ]


@pytest.mark.parametrize(
    ("model", "outline"), [("grounding_dino", "sam"), ("owlv2", "sam2"), ("owlv2", None), ("clipseg", "sam")]
)
def test_each_phrase_gives_scored_boxes_and_masks_whatever_the_batch(
    models: Models, model: str, outline: str | None
) -> None:
    named = None if outline is None else models(outline)
    found = find(models(model), named, PICTURES, batch_size=1)
    assert len({str(one) for one in plain(found)}) == len(PICTURES), "the picture must matter"
    for one, image in zip(found, PICTURES, strict=True):
        height, width = image.shape[:2]
        assert one, "something is found"
        for region in one.values():
            for box in region.boxes:
                assert 0 <= box.x0 < box.x1 <= width
                assert 0 <= box.y0 < box.y1 <= height
                assert 0 < box.score <= 1
            scores = [box.score for box in region.boxes]
            assert scores == sorted(scores, reverse=True)
            assert region.mask_hw is None or region.mask_hw.shape == (height, width)
    assert any(region.mask_hw is not None for one in found for region in one.values()) == (outline is not None)
    answers = {str(plain([{"one": region}])) for region in found[0].values()}
    assert len(answers) > 1, "the words must matter"
    assert plain(find(models(model), named, [PICTURES[0]], batch_size=3))[0] == plain(found)[0]


def test_only_the_wanted_regions_are_asked_for(models: Models) -> None:
    chosen = WordsSettings(model=models("owlv2"), outline=None, device="cpu", confidence=0.0, largest=1.0)
    with WordsFinder(chosen, WORDS) as finder:
        first, second = finder.find(PICTURES, [["hat"], []])
    assert (list(first), second) == (["hat"], {})


def test_memory_that_runs_out_halves_the_batch_and_then_names_the_picture(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models("owlv2")
    whole, sizes = find(model, None, PICTURES, batch_size=1), []
    ask = WordsFinder._detect

    def short(self: WordsFinder, queries: list[tuple[Picture, str]]) -> list[FoundRegion | None]:
        sizes.append(len(queries))
        if len(queries) > limit:
            raise torch.OutOfMemoryError
        return ask(self, queries)

    monkeypatch.setattr(WordsFinder, "_detect", short)
    limit = 1
    assert plain(find(model, None, PICTURES, batch_size=4)) == plain(whole)
    assert sizes == [4, 2, 1, 1, 1, 1, 1, 1], "the size that fitted is kept"
    limit = 0
    with pytest.raises(ModelError, match="not enough memory for a picture of 60x40"):
        find(model, None, PICTURES)


def test_boxes_that_do_not_fit_are_outlined_in_halves(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, sizes, outline = find(models("owlv2"), models("sam"), PICTURES), [], WordsFinder._outline

    def short(self: WordsFinder, shown: Picture, boxes: list[Box]) -> list[Mask]:
        sizes.append(len(boxes))
        if len(boxes) > limit:
            raise torch.OutOfMemoryError
        return outline(self, shown, boxes)

    monkeypatch.setattr(WordsFinder, "_outline", short)
    limit = 2
    found = find(models("owlv2"), models("sam"), PICTURES)
    assert plain(found) == plain(whole)
    for one, other in zip(found, whole, strict=True):
        for name, region in one.items():
            np.testing.assert_array_equal(region.mask_hw, other[name].mask_hw)
    assert sizes[0] > 2
    assert sum(size > 2 for size in sizes) == sizes.index(2 if 2 in sizes else 1), "the size that fitted is kept"
    limit = 0
    with pytest.raises(ModelError, match=r"sam.*: not enough memory for a picture of 60x40; take a smaller words.out"):
        find(models("owlv2"), models("sam"), PICTURES)


@pytest.mark.parametrize(("setting", "model"), [("model", "sam"), ("outline", "owlv2")])
def test_a_model_of_another_kind_is_named(models: Models, setting: str, model: str) -> None:
    chosen = {"model": models("owlv2"), "outline": None} | {setting: models(model)}
    with pytest.raises(ModelError, match=rf"words\.{setting} .*{model}.*expected"):
        WordsFinder(WordsSettings(**chosen, device="cpu"), WORDS)


def test_pieces_of_a_map_are_islands_that_are_neither_tiny_nor_the_whole_picture() -> None:
    map_hw = np.zeros((200, 100), dtype=np.float32)
    map_hw[10:20, 10:30], map_hw[150:190, 40:60], map_hw[100, 80] = 0.6, 0.9, 0.95
    found = pieces_of(map_hw, 0.5, 0.9)
    assert found is not None
    assert [(box.x0, box.y0, box.x1, box.y1) for box in found.boxes] == [(40, 150, 60, 190), (10, 10, 30, 20)]
    assert [box.score for box in found.boxes] == pytest.approx([0.9, 0.6])
    assert found.mask_hw is not None
    assert found.mask_hw.sum() == 20 * 40 + 10 * 20
    assert pieces_of(np.ones((20, 20), dtype=np.float32), 0.5, 0.9) is None
    assert pieces_of(map_hw, 0.96, 0.9) is None
