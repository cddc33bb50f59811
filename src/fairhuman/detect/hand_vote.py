"""Hand detection by a vote of five passes over a picture, because one pass misses too many hands."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fairhuman.detect.body import Body, BodyFinder
from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Detection, Picture, box_around, check_picture
from fairhuman.detect.hands import HandDetector, box_with_flesh
from fairhuman.detect.holistic import BodyHands
from fairhuman.detect.overlap import corners, iou, non_maximum_suppression
from fairhuman.record import Box

VOTERS = 5
SCALES = (1.2, 1.8, 2.6)  # side of a crop / length of an arm segment
ARM_PER_HAND = 5 / 3  # length of an arm segment / longer side of the box around a hand's key points
SAME_HAND_IOU = 0.3  # minimum IoU of two voters' boxes of one hand
DUPLICATE_IOU = 0.4  # two boxes of one voter above this IoU are one hand
# A wrist nearer to a hand, in lengths of its arm segment, is that hand's: crops around it show nearly the same. Without
# them, the same 124 hands were found in 95 photos (recall 0.84), in two thirds of the time.
SAME_PLACE = 0.5
MIN_CROP = 16  # pixels
MIN_INSIDE = 0.25  # minimum share of a crop inside the picture
# BlazePose's key points of each arm: wrist, elbow, shoulder, knuckles of the index and the little finger.
ARMS = ((15, 13, 11, 19, 17), (16, 14, 12, 20, 18))


class HandPlace(NamedTuple):
    """A possible place of a hand: x and y in pixels, and the length of the arm segment."""

    x: float
    y: float
    arm: float


class VoteNetworks(NamedTuple):
    """The detectors that vote."""

    hands: HandDetector
    bodies: BodyFinder
    body_hands: BodyHands


class HandVote(BundledModel[VoteNetworks]):
    """Hands found by at least `votes` of five passes: the full picture, the body, and crops at three scales.

    The pass over the body searches hands where the pose has them, as MediaPipe Holistic does.

    The crops lie around every hand found in the full picture, so close-ups without a person and hands of other persons
    get more than one pass too, and around the wrists of the most prominent person. A crop that leaves the picture is
    padded with the picture's edge pixels; without them, hands cut off by the frame are missed.

    A hand's score and key points come from the pass with the highest handedness score; the score is 0 if only the pass
    over the body found the hand. Its box is the median of its voters' boxes, each of them the box of the key points
    with a margin of a tenth of its longer side, so that it covers the flesh. The side (left or right) is decided by
    majority, in a tie by the best pass. Of two hands holding each other, often only one is found.

    Args:
        votes: minimum number of passes, 1..5.
        confidence: minimum score of the palm detector in each pass, 0..1; low, since the vote removes false hands.
        max_hands: maximum number of hands in a picture.
        bodies: finds the body; by default its own. `PersonDetector` may share it.
        brief: no crops around the wrists of hands that were found in the full picture. That finds the same hands, with
            key points that are sometimes a little worse.
    """

    MODEL = "hands vote"

    def __init__(
        self,
        votes: int = 2,
        confidence: float = 0.2,
        max_hands: int = 8,
        bodies: BodyFinder | None = None,
        *,
        brief: bool = False,
    ) -> None:
        if not 1 <= votes <= VOTERS:
            raise ValueError(f"votes must be in 1..{VOTERS}, not {votes}")
        self.votes, self.max_hands, self.brief = votes, max_hands, brief
        super().__init__(
            lambda: VoteNetworks(HandDetector(confidence, max_hands), bodies or BodyFinder(), BodyHands()), confidence
        )

    def detect(self, image: Picture) -> list[Detection]:
        """Hands in a picture [H, W, 3], by falling number of votes; left and right are the person's own."""
        image = check_picture(image)
        in_full = self.networks.hands.detect(image)
        body = self.networks.bodies.find(image)
        of_body = [] if body is None else self._detect_on_body(image, body)
        places = [_place(hand) for hand in in_full]
        wrists = [] if body is None else _wrists(body)
        places += [wrist for wrist in wrists if not (self.brief and _at_one_of(wrist, places))]
        ballots = [in_full, of_body, *(self._detect_in_crops(image, places, scale) for scale in SCALES)]
        hands = elect([[with_flesh(hand, image) for hand in ballot] for ballot in ballots], self.votes)
        return [replace(hand, source=self.source) for hand in hands[: self.max_hands]]

    def _detect_on_body(self, image: Picture, body: Body) -> list[Detection]:
        """Hands with score 0, because this pass has no handedness."""
        found = []
        for label, points_n3 in self.networks.body_hands.find(image, body).items():
            box = box_around(points_n3, 0.0, image)
            if box is not None:
                found.append(Detection(box, label, points_n3, source=self.source))
        return found

    def _detect_in_crops(self, image: Picture, places: Sequence[HandPlace], scale: float) -> list[Detection]:
        found = []
        for place in places:
            crop = _crop(image, place, scale)
            if crop is not None:
                found += [_to_picture(hand, crop, image) for hand in self.networks.hands.detect(crop.picture)]
        return [hand for hand in found if hand is not None]


@dataclass(slots=True)
class _Candidate:
    """A hand with the detections that support it, best first, and their voters."""

    supporters: list[Detection]
    voters: set[int] = field(default_factory=set)


def elect(ballots: Sequence[Sequence[Detection]], votes: int) -> list[Detection]:
    """Hands in at least `votes` ballots, by falling number of votes, then by score.

    Duplicates within a ballot are removed first. Then, from the highest score down, a hand joins the candidate whose
    best box it overlaps most, with an IoU of at least `SAME_HAND_IOU`, among candidates without a vote of the same
    voter; else it becomes a new candidate.
    """
    entries = [(voter, hand) for voter, ballot in enumerate(ballots) for hand in _distinct(ballot)]
    candidates: list[_Candidate] = []
    for voter, hand in sorted(entries, key=lambda entry: -entry[1].score):
        free = [candidate for candidate in candidates if voter not in candidate.voters]
        overlaps = iou(corners([hand.box]), corners([candidate.supporters[0].box for candidate in free]))[0]
        if free and overlaps.max() >= SAME_HAND_IOU:
            chosen = free[int(overlaps.argmax())]
        else:
            chosen = _Candidate([])
            candidates.append(chosen)
        chosen.supporters.append(hand)
        chosen.voters.add(voter)
    elected = [_elected(candidate.supporters) for candidate in candidates if len(candidate.voters) >= votes]
    return sorted(elected, key=lambda hand: (-(hand.votes or 0), -hand.score))


def _elected(supporters: Sequence[Detection]) -> Detection:
    best = supporters[0]
    label = Counter(hand.label for hand in supporters).most_common(1)[0][0]  # in a tie, the label counted first
    x0, y0, x1, y1 = np.median(corners([hand.box for hand in supporters]), axis=0).tolist()
    return replace(best, box=Box(x0, y0, x1, y1, best.score), label=label, votes=len(supporters))


def _distinct(ballot: Sequence[Detection]) -> list[Detection]:
    scores_n = np.array([hand.score for hand in ballot])
    kept = non_maximum_suppression(corners([hand.box for hand in ballot]), scores_n, DUPLICATE_IOU)
    return [ballot[index] for index in kept]


def with_flesh(hand: Detection, image: Picture) -> Detection:
    """Enlarge the box of a hand to cover the flesh around its key points."""
    box = None if hand.landmarks_n3 is None else box_with_flesh(hand.landmarks_n3, hand.score, image)
    return hand if box is None else replace(hand, box=box)


def _wrists(body: Body) -> list[HandPlace]:
    points_n2 = body.points_n3[:, :2]
    places = []
    for wrist, elbow, shoulder, index, little in ARMS:
        # A segment that points at the camera looks short, but rarely do both segments of an arm.
        lower = float(np.linalg.norm(points_n2[wrist] - points_n2[elbow]))
        upper = float(np.linalg.norm(points_n2[elbow] - points_n2[shoulder]))
        x, y = (points_n2[wrist] + points_n2[[index, little]].mean(axis=0)) / 2
        places.append(HandPlace(float(x), float(y), max(lower, upper)))
    return places


def _at_one_of(wrist: HandPlace, hands: Sequence[HandPlace]) -> bool:
    return any(math.hypot(wrist.x - hand.x, wrist.y - hand.y) <= SAME_PLACE * hand.arm for hand in hands)


class _Crop(NamedTuple):
    """A square crop, and the position of its corner in the picture."""

    picture: Picture
    x: int
    y: int


def _place(hand: Detection) -> HandPlace:
    x, y = hand.centre
    return HandPlace(x, y, ARM_PER_HAND * max(hand.box.x1 - hand.box.x0, hand.box.y1 - hand.box.y0))


def _crop(image: Picture, place: HandPlace, scale: float) -> _Crop | None:
    """The square around a place, padded with the picture's edge; None if too little of it is inside the picture."""
    height, width = image.shape[:2]
    side = max(round(place.arm * scale), MIN_CROP)
    x0, y0 = round(place.x - side / 2), round(place.y - side / 2)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x0 + side, width), min(y0 + side, height)
    if left >= right or top >= bottom or (right - left) * (bottom - top) < MIN_INSIDE * side * side:
        return None
    padding = ((top - y0, y0 + side - bottom), (left - x0, x0 + side - right), (0, 0))
    return _Crop(np.pad(image[top:bottom, left:right], padding, mode="edge"), x0, y0)


def _to_picture(hand: Detection, crop: _Crop, image: Picture) -> Detection | None:
    """Convert a detection in a crop to pixels of the picture; None if it lies in the padding."""
    if hand.landmarks_n3 is None:
        return None
    points_n3 = hand.landmarks_n3 + np.array([crop.x, crop.y, 0], dtype=np.float32)
    box = box_around(points_n3, hand.score, image)
    return None if box is None else replace(hand, box=box, landmarks_n3=points_n3)
