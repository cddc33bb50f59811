"""Faces and hands of a picture with their strict quality, and the acceptance test for a redrawn picture.

A redrawn picture is accepted if the redrawn part improves and nothing else gets worse. With the parts of the original
picture as the expected ones, no other part, and neither Σ quality of faces nor that of hands, may fall by more than
`TOLERANCE` below the best it has had, and there may be no additional faces or hands.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fairhuman.data.condition.holistic import HolisticPose
from fairhuman.data.condition.people import PersonPose
from fairhuman.detect.detection import Picture
from fairhuman.detect.found_region import Mask
from fairhuman.detect.overlap import corners, match_boxes
from fairhuman.detect.settings import open_detectors
from fairhuman.evaluate.people.detections import face_detector, hand_detector
from fairhuman.evaluate.people.strict import MIN_IOU, face_quality, hand_quality
from fairhuman.record import Box
from fairhuman.refine.settings import KINDS, REGION, Kind, PartKind, RefineSettings

Array = NDArray[np.float64]

# Other parts keep their pixels, but detectors see the whole picture, so their scores vary slightly.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class BodyPart:
    """One face or hand, or a piece of a further region.

    Attributes:
        kind: `face`, `hand` or `region`.
        box: box in pixels of the upright picture.
        quality: strict quality, 0..1; 0 if the strict detectors didn't find it.
        label: `face`, `left hand`, `right hand` or `hand`; of a region its name.
        points: 21 landmarks x, y, z of a hand in pixels; empty if unknown.
        measured: whether the strict detectors found it, not only an additional detector.
        mask_hw: of a region, its pixels in the picture; None: the whole box.
    """

    kind: Kind
    box: Box
    quality: float
    label: str
    points: tuple[tuple[float, float, float], ...] = ()
    measured: bool = True
    mask_hw: Mask | None = field(default=None, compare=False, repr=False)

    @property
    def side(self) -> float:
        """Longer side of the box in pixels."""
        return max(self.box.x1 - self.box.x0, self.box.y1 - self.box.y0)


@dataclass(frozen=True, slots=True)
class PictureParts:
    """Parts of one picture, faces before hands, each kind best first; and its people if poses were requested."""

    parts: tuple[BodyPart, ...] = ()
    people: tuple[PersonPose, ...] = ()


PartsDetector = Callable[[Picture], PictureParts]


@contextmanager
def open_parts_detector(settings: RefineSettings, with_people: bool = False) -> Iterator[PartsDetector]:
    """Load the detectors for a `with` block; yields a function that finds the parts of an upright RGB picture.

    `partial(open_parts_detector, settings)` serves as `start` of a guarded process.

    Raises:
        DetectorError: a detector can't be loaded.
    """
    with ExitStack() as stack:
        faces = stack.enter_context(face_detector(settings.upscale)) if "face" in settings.parts else None
        hands = stack.enter_context(hand_detector(settings.upscale)) if "hand" in settings.parts else None
        further = stack.enter_context(open_detectors(settings.detect)) if settings.detect is not None else None
        pose = stack.enter_context(HolisticPose()) if with_people else None

        def look(picture: Picture) -> PictureParts:
            parts = [
                BodyPart("face", one.box, face_quality(one), one.label) for one in (faces(picture) if faces else ())
            ]
            for hand in hands(picture) if hands else ():
                parts.append(BodyPart("hand", hand.box, hand_quality(hand), hand.label, hand.points))
            for found in (further(picture) if further else {}).values():
                parts = with_unmeasured(parts, {one.label: [one.box] for one in found}, settings.parts)
            return PictureParts(tuple(sorted(parts, key=_order)), tuple(pose(picture)) if pose else ())

        yield look


def with_unmeasured(
    parts: Sequence[BodyPart], boxes: Mapping[str, Sequence[Box]], kinds: Sequence[PartKind] = KINDS
) -> list[BodyPart]:
    """Parts, plus those of the labelled boxes that match none of them, with quality 0."""
    found = list(parts)
    for label, each in boxes.items():
        kind: PartKind | None = "face" if label == "face" else "hand" if label.endswith("hand") else None
        for box in each if kind in kinds else ():
            assert kind is not None
            if not match_boxes(corners([one.box for one in found if one.kind == kind]), corners([box]), MIN_IOU):
                found.append(BodyPart(kind, box, 0.0, label, measured=False))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class PartScores:
    """Scores of a picture against the expected parts.

    Attributes:
        quality_n: quality of each expected part, in order; 0 if it isn't found.
        kinds: kind of each expected part.
        extra: number of unexpected faces and hands found, by kind.
        totals: Σ quality of the expected parts of each kind.
    """

    quality_n: Array
    kinds: tuple[Kind, ...]
    extra: Mapping[str, int]
    totals: Mapping[str, float]

    def best_of(self, other: "PartScores") -> "PartScores":
        """The higher quality of each part and sum."""
        totals = {kind: max(total, other.totals[kind]) for kind, total in self.totals.items()}
        return replace(self, quality_n=np.maximum(self.quality_n, other.quality_n), totals=totals)


def score_parts(seen: PictureParts, expected: Sequence[BodyPart]) -> PartScores:
    """Score the detected parts against the expected ones, matched by kind as in the strict metrics."""
    quality_n = np.zeros(len(expected))
    extra: dict[str, int] = {}
    for kind in KINDS:
        places = [place for place, part in enumerate(expected) if part.kind == kind]
        found = [part for part in seen.parts if part.kind == kind and part.measured]
        pairs = match_boxes(corners([part.box for part in found]), corners([expected[i].box for i in places]), MIN_IOU)
        for index, place in pairs:
            quality_n[places[place]] = found[index].quality
        extra[kind] = len(found) - len(pairs)
    kinds = tuple(part.kind for part in expected)
    totals: dict[str, float] = {kind: float(quality_n[[one == kind for one in kinds]].sum()) for kind in KINDS}
    return PartScores(quality_n, kinds, extra, totals)


def rejection_reason(
    before: PartScores, after: PartScores, number: int, gain: float, peak: PartScores | None = None
) -> str:
    """Reason to reject a picture whose part `number` was redrawn; empty if it is accepted. See the module.

    A region has no quality and need not gain. `peak` has the best qualities and sums up to now; None: those before.
    """
    peak = peak or before
    if before.kinds[number] != REGION and after.quality_n[number] - before.quality_n[number] < gain:
        return f"quality {before.quality_n[number]:.2f} before, {after.quality_n[number]:.2f} after"
    others_n = np.delete(after.quality_n - peak.quality_n, number)
    if (others_n < -TOLERANCE).any():
        return f"another part would lose {-others_n.min():.2f}"
    for kind in KINDS:
        if after.totals[kind] < peak.totals[kind] - TOLERANCE:
            return f"total quality of {kind}s would fall"
        if after.extra[kind] > before.extra[kind]:
            return f"there would be an additional {kind}"
    return ""


def _order(part: BodyPart) -> tuple[int, float, float, float]:
    return KINDS.index(part.kind), -part.quality, part.box.x0, part.box.y0
