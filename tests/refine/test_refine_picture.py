import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fairhuman.detect.detection import Picture
from fairhuman.record import Box
from fairhuman.refine.canvas import Canvas
from fairhuman.refine.inpaint import Painter
from fairhuman.refine.page import summary
from fairhuman.refine.parts import BodyPart, PartsDetector, PictureParts, rejection_reason, score_parts, with_unmeasured
from fairhuman.refine.picture import PartRow, RefineTools, part_crop, picture_outcome, refine_picture
from fairhuman.refine.run import RefineOutcome
from fairhuman.refine.settings import RefineSettings
from helpers.tiny_parts import BoardLook, ContrastPainter, NoisePainter, boards

FACE, HAND = (16, 16, 40, 40), (72, 48, 92, 68)
BOXES = [("face", Box(*FACE)), ("hand", Box(*HAND))]
SETTINGS = RefineSettings(attempts=3)


def file_of(picture: Picture, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(picture).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257 + 3)
    if mode in ("LA", "RGBA"):
        alpha = Image.fromarray((np.indices((picture.shape[0], picture.shape[1])).sum(axis=0) % 56 + 200).astype("u1"))
        image.putalpha(alpha)
    image.save(stream, "PNG")
    return stream.getvalue()


def refine(
    canvas: Canvas, painter: Painter, look: PartsDetector, settings: RefineSettings = SETTINGS, name: str = "a.png"
) -> tuple[Canvas, list[PartRow]]:
    return refine_picture(canvas, name, "two people", settings, RefineTools(look, painter, lambda *_: {}))


def weak_canvas(mode: str = "RGB", face: float = 0.3, hand: float = 0.25) -> Canvas:
    return Canvas.read(file_of(boards(101, 117, {FACE: face, HAND: hand}), mode))


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "I;16"])
def test_all_outside_of_the_blended_regions_stays_bit_equal_and_poor_parts_gain(mode: str) -> None:
    canvas, painter = weak_canvas(mode), ContrastPainter(2.0, 3.0)
    before = canvas.pixels.copy()
    result, rows = refine(canvas, painter, BoardLook(BOXES))
    weight_hw = np.zeros(before.shape[:2])
    for _, box in BOXES:
        crop = part_crop(box, canvas.size, SETTINGS, painter)
        left, top, side = crop.square
        weight_hw[top : top + side, left : left + side] += crop.weight_hw
    assert (canvas.pixels == before).all()
    assert (result.pixels[weight_hw == 0] == before[weight_hw == 0]).all()
    assert (result.pixels != before).any()
    assert result.pixels.dtype == before.dtype
    assert [row.outcome for row in rows] == ["refined", "refined"]
    assert all(row.after > row.before + 0.3 for row in rows)
    assert (Canvas.read(result.png()).pixels == result.pixels).all(), "the file has the same pixels"


@pytest.mark.parametrize("face", [0.0, 0.3, 0.69])
def test_a_pipeline_that_makes_noise_alone_changes_nothing(face: float) -> None:
    canvas, painter = weak_canvas(face=face, hand=0.2), NoisePainter()
    result, rows = refine(canvas, painter, BoardLook(BOXES))
    assert painter.calls == 6, "three attempts at each"
    assert result is canvas
    assert picture_outcome(rows) == "kept"
    assert [(row.outcome, row.after) for row in rows] == [("kept", row.before) for row in rows]
    assert all(why for row in rows for _, why in row.attempts)


def test_the_best_attempt_is_taken_and_a_good_one_ends_them() -> None:
    painter = ContrastPainter(1.5, 2.0, 0.5)
    _, rows = refine(weak_canvas(face=0.2, hand=1.0), painter, BoardLook(BOXES))
    assert rows[0].taken == 1
    assert len(rows[0].attempts) == 3
    assert rows[0].after == pytest.approx(rows[0].attempts[1][0], abs=1e-3)
    painter = ContrastPainter(3.0)
    _, rows = refine(weak_canvas(face=0.3, hand=1.0), painter, BoardLook(BOXES))
    assert len(rows[0].attempts) == 1
    assert rows[0].taken == 0


def test_good_parts_and_small_ones_are_left_alone() -> None:
    painter = NoisePainter()
    canvas = weak_canvas(face=0.9, hand=0.2)
    result, rows = refine(canvas, painter, BoardLook(BOXES), RefineSettings(least_part=21))
    assert result is canvas
    assert painter.calls == 0
    assert [row.outcome for row in rows] == ["good", "small"]
    assert picture_outcome(rows) == "kept"
    assert picture_outcome(rows[:1]) == "good"
    assert picture_outcome([]) == "no parts"


def test_a_part_that_no_strict_measure_finds_is_redrawn_too() -> None:
    canvas = weak_canvas(face=0.08, hand=1.0)
    _, rows = refine(canvas, ContrastPainter(8.0), BoardLook(BOXES))
    assert rows[0].before == 0
    assert rows[0].outcome == "refined"


def test_a_doubtful_face_is_neither_redrawn_nor_counted() -> None:
    painter, canvas = NoisePainter(), weak_canvas()
    seen = PictureParts((BodyPart("face", Box(*FACE), 0.03, "face"), BodyPart("hand", Box(*HAND), 0.9, "hand")))
    result, rows = refine(canvas, painter, lambda _: seen)
    assert (result is canvas, painter.calls) == (True, 0)
    assert [row.outcome for row in rows] == ["doubtful", "good"]
    assert [picture_outcome(rows), picture_outcome(rows[:1])] == ["good", "no parts"]
    picture = {"name": "a.png", "outcome": "good", "parts": [row.plain() for row in rows]}
    assert summary(RefineOutcome([picture], {}))[:2] == [
        "0 faces, 0 poor, 0 of them improved; 1 doubtful, probably no face, left as it is",
        "1 hand, 0 poor, 0 of them improved; mean quality 0.900 before, 0.900 after",
    ]
    refine(canvas, painter, lambda _: seen, RefineSettings(attempts=3, doubtful_face=0.02))
    assert painter.calls == 3


class Spoiling:
    """Draws well, but whoever looks finds one more hand, or a worse one elsewhere, after a change."""

    def __init__(self, first: PictureParts, then: PictureParts) -> None:
        self.answers = [first, then]

    def __call__(self, picture: Picture) -> PictureParts:
        return self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)


FACE_PART, HAND_PART = (BodyPart(kind, box, 0.5, kind) for kind, box in BOXES)


def test_two_others_may_not_lose_together_what_one_may_lose() -> None:
    """The measure of a part whose pixels are the same varies, but not of all in one direction."""
    hands = [BodyPart("hand", Box(*HAND), 0.5, "hand"), BodyPart("hand", Box(0, 80, 20, 100), 0.5, "hand")]
    expected = (FACE_PART, *hands)
    before = score_parts(PictureParts(expected), expected)
    for losses, why in (((0.0, 0.015), ""), ((0.015, 0.015), "total quality of hands would fall")):
        worse = [replace(hand, quality=hand.quality - loss) for hand, loss in zip(hands, losses, strict=True)]
        after = score_parts(PictureParts((replace(FACE_PART, quality=0.9), *worse)), expected)
        assert rejection_reason(before, after, 0, gain=0.05) == why


@pytest.mark.parametrize(
    ("then", "why"),
    [
        ([BodyPart("face", Box(*FACE), 0.9, "face"), BodyPart("hand", Box(*HAND), 0.7, "hand")], ""),
        (
            [BodyPart("face", Box(*FACE), 0.9, "face"), BodyPart("hand", Box(*HAND), 0.4, "hand")],
            "another part would lose 0.10",
        ),
        ([BodyPart("face", Box(*FACE), 0.9, "face"), BodyPart("hand", Box(*HAND), 0.485, "hand")], ""),
        ([BodyPart("face", Box(*FACE), 0.9, "face")], "another part would lose 0.50"),
        ([BodyPart("face", Box(*FACE), 0.52, "face"), HAND_PART], "quality 0.50 before, 0.52 after"),
        ([BodyPart("face", Box(60, 60, 80, 80), 0.9, "face"), HAND_PART], "quality 0.50 before, 0.00 after"),
        (
            [BodyPart("face", Box(*FACE), 0.9, "face"), HAND_PART, BodyPart("hand", Box(0, 80, 20, 100), 0.9, "hand")],
            "there would be an additional hand",
        ),
    ],
)
def test_a_gain_is_refused_where_anything_else_is_lost(then: list[BodyPart], why: str) -> None:
    expected = (FACE_PART, HAND_PART)
    found = rejection_reason(
        score_parts(PictureParts(expected), expected), score_parts(PictureParts(tuple(then)), expected), 0, gain=0.05
    )
    assert found.startswith(why)
    assert bool(found) == bool(why)
    settings = RefineSettings(attempts=1, poor_hand=0.0)
    canvas = weak_canvas()
    result, rows = refine(
        canvas, ContrastPainter(2.0), Spoiling(PictureParts(expected), PictureParts(tuple(then))), settings
    )
    assert (result is canvas) == bool(why)
    assert rows[0].outcome == ("kept" if why else "refined")


def test_small_losses_of_several_changes_do_not_add_up() -> None:
    other = replace(FACE_PART, box=Box(60, 60, 84, 84))

    def seen(*qualities: float) -> PictureParts:
        parts = zip((FACE_PART, other, HAND_PART), qualities, strict=True)
        return PictureParts(tuple(replace(part, quality=quality) for part, quality in parts))

    look = Spoiling(seen(0.5, 0.5, 0.9), seen(0.8, 0.5, 0.885))
    look.answers.append(seen(0.8, 0.8, 0.87))
    _, rows = refine(weak_canvas(), ContrastPainter(2.0), look, RefineSettings(attempts=1))
    assert [row.outcome for row in rows] == ["refined", "kept", "good"]
    assert rows[1].attempts == ((0.8, "another part would lose 0.03"),)


def test_the_noise_of_an_attempt_follows_from_seed_picture_part_and_attempt() -> None:
    def attempts(name: str, seed: int, boxes: list[tuple[str, Box]]) -> list[bytes]:
        drawn: list[bytes] = []

        class Recording(NoisePainter):
            def __call__(self, *arguments: object) -> Image.Image:
                drawn.append(super().__call__(*arguments).tobytes())  # type: ignore[arg-type]
                return Image.frombytes("RGB", (32, 32), drawn[-1][: 32 * 32 * 3])

        settings = RefineSettings(attempts=2, seed=seed)
        refine(weak_canvas(), Recording(), BoardLook(boxes), settings, name)  # type: ignore[arg-type]
        return drawn

    first = attempts("a.png", 0, BOXES)
    assert len(set(first)) == 4
    assert attempts("a.png", 0, BOXES) == first
    assert attempts("a.png", 0, BOXES[:1]) == first[:2]
    assert not set(attempts("b.png", 0, BOXES)) & set(first)
    assert not set(attempts("a.png", 1, BOXES)) & set(first)


def test_prompts_name_the_part_and_hold_the_pictures_own() -> None:
    painter = ContrastPainter(3.5)
    refine(weak_canvas(), painter, BoardLook(BOXES), RefineSettings(hand_prompt="hand of {prompt}"))
    assert painter.prompts == ["close-up of a face, two people", "hand of two people"]
    assert RefineSettings().prompt("face", "") == "close-up of a face"


def test_rows_are_json() -> None:
    _, rows = refine(weak_canvas(), ContrastPainter(3.5), BoardLook(BOXES))
    assert json.loads(json.dumps(rows[0].plain()))["square"] == list(rows[0].square or ())


def test_what_other_detectors_alone_find_counts_as_a_part_of_quality_0() -> None:
    found = with_unmeasured(
        [FACE_PART],
        {
            "face": [Box(17, 17, 41, 41), Box(60, 60, 80, 80)],
            "left hand": [Box(0, 0, 9, 9)],
            "person": [Box(0, 0, 99, 99)],
        },
    )
    assert [(part.kind, part.quality, part.measured) for part in found] == [
        ("face", 0.5, True),
        ("face", 0.0, False),
        ("hand", 0.0, False),
    ]
    assert len(with_unmeasured([], {"left hand": [Box(0, 0, 9, 9)]}, ["face"])) == 0


def test_settings_that_draw_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="steps"):
        RefineSettings(steps=3, strength=0.2)
    with pytest.raises(ValueError, match="once"):
        RefineSettings(parts=("face", "face"))
