"""Hands by the vote of five looks at the picture, all of them MediaPipe's: one look alone finds too few."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fairhuman.detect.bundled import BundledModel, pixel_points, source_name
from fairhuman.detect.detection import Closing, Detection, Picture, box_around, check_picture
from fairhuman.detect.hands import HandDetector, flesh_box
from fairhuman.detect.overlap import corners, iou, without_doubles
from fairhuman.record import Box

VOTERS = 5
SCALES = (1.2, 1.8, 2.6)  # side of a crop through the length of an arm's segment
ARM_PER_HAND = 5 / 3  # length of an arm's segment through the longer side of the box around a hand's key points
SAME_HAND = 0.3  # least IoU of two voters' boxes of one hand
DOUBLE = 0.4  # two boxes of one voter above this IoU are one hand
SMALLEST_CROP = 16  # pixels
LEAST_INSIDE = 0.25  # share of a crop that has to lie in the picture
# BlazePose's key points of each arm: wrist, elbow, shoulder, index and little finger's knuckle.
ARMS = ((15, 13, 11, 19, 17), (16, 14, 12, 20, 18))

BLANK = np.zeros((64, 64, 3), dtype=np.uint8)


class HandPlace(NamedTuple):
    """Where a hand may be: x and y in pixels, and the length of an arm's segment there."""

    x: float
    y: float
    arm: float


class HolisticModel(BundledModel):
    """MediaPipe Holistic: the hands of the most prominent person, and where the person's pose has its wrists."""

    MODEL = "holistic"

    def __init__(self, confidence: float = 0.5) -> None:
        super().__init__(
            lambda solutions: solutions.holistic.Holistic(
                static_image_mode=True, model_complexity=1, min_detection_confidence=confidence
            ),
            confidence,
        )

    def look(self, image: Picture) -> tuple[list[Detection], list[HandPlace]]:
        """Hands, whose score is 0 because Holistic gives none, and places of the wrists."""
        # Its static mode still starts from the hands of the picture before, if they lie near; a blank one clears them.
        self._process(BLANK)
        result = self._process(image)
        hands = []
        for label, found in (
            ("left hand", result.left_hand_landmarks),
            ("right hand", result.right_hand_landmarks),
        ):
            points_n3 = None if found is None else pixel_points(found.landmark, image)
            box = None if points_n3 is None else box_around(points_n3, 0.0, image)
            if box is not None:
                hands.append(Detection(box, label, points_n3, source=self.source))
        if result.pose_landmarks is None:
            return hands, []
        points_n2 = pixel_points(result.pose_landmarks.landmark, image)[:, :2]
        places = []
        for wrist, elbow, shoulder, index, little in ARMS:
            # A segment that points at the camera looks short; seldom do both.
            lower = float(np.linalg.norm(points_n2[wrist] - points_n2[elbow]))
            upper = float(np.linalg.norm(points_n2[elbow] - points_n2[shoulder]))
            x, y = (points_n2[wrist] + points_n2[[index, little]].mean(axis=0)) / 2
            places.append(HandPlace(float(x), float(y), max(lower, upper)))
        return hands, places


class HandVote(Closing):
    """Hands that at least `votes` of five looks find: the whole picture, Holistic, and crops at three scales.

    The crops lie around the wrists of the most prominent person's pose and around every hand that the look at the
    whole picture finds: so close-ups without a person and hands of further persons have more than one look too. A
    crop goes on beyond the picture with its edge pixels, which hands cut off by the frame need to be found.

    A hand's score and key points are those of the look with the highest handedness score; 0 where Holistic alone
    found it. Its box is the median of its voters' boxes, each of them the key points' box with a tenth of its longer
    side added all around, so that it covers the flesh. The side is that of the majority, the best look's where votes
    are equal. Of two hands that hold each other often one is found.

    Args:
        votes: least number of looks, 1..5.
        confidence: least score of the palm detector in each look, 0..1; low, since the vote removes false hands.
        most: largest number of hands in a picture.

    """

    MODEL = "hands vote"

    def __init__(self, votes: int = 2, confidence: float = 0.2, most: int = 8) -> None:
        if not 1 <= votes <= VOTERS:
            raise ValueError(f"votes must be in 1..{VOTERS}, not {votes}")
        self.votes, self.most, self.source = votes, most, source_name(self.MODEL)
        with ExitStack() as stack:
            self._hands = stack.enter_context(HandDetector(confidence, most))
            self._holistic = stack.enter_context(HolisticModel())
            self._opened = stack.pop_all()

    def detect(self, image: Picture) -> list[Detection]:
        """Hands in a picture [H, W, 3], those with most votes first, labelled as the person's own.

        Raises:
            ValueError: the picture isn't RGB, uint8, [H, W, 3]; or the detector is closed.

        """
        image = check_picture(image)
        whole = self._hands.detect(image)
        holistic, places = self._holistic.look(image)
        places += [_place(hand) for hand in whole]
        ballots = [whole, holistic, *(self._look_close(image, places, scale) for scale in SCALES)]
        hands = elect([[with_flesh(hand, image) for hand in ballot] for ballot in ballots], self.votes)
        return [replace(hand, source=self.source) for hand in hands[: self.most]]

    def _look_close(self, image: Picture, places: Sequence[HandPlace], scale: float) -> list[Detection]:
        found = []
        for place in places:
            crop = _crop(image, place, scale)
            if crop is not None:
                found += [_moved(hand, crop, image) for hand in self._hands.detect(crop.picture)]
        return [hand for hand in found if hand is not None]

    def close(self) -> None:
        """Free the native graphs; a second call does nothing."""
        self._opened.close()


@dataclass(slots=True)
class _Candidate:
    """A hand with those who voted for it, the best first."""

    supporters: list[Detection]
    voters: set[int] = field(default_factory=set)


def elect(ballots: Sequence[Sequence[Detection]], votes: int) -> list[Detection]:
    """Hands that at least `votes` ballots hold, those with most votes first, then by score.

    From the highest score down, a hand joins the candidate that its box overlaps most, by an IoU of `SAME_HAND` at
    least with the candidate's best box, among those its voter hasn't voted for yet; or it becomes a new candidate.
    Doubles within a ballot are removed before.
    """
    entries = [(voter, hand) for voter, ballot in enumerate(ballots) for hand in _distinct(ballot)]
    candidates: list[_Candidate] = []
    for voter, hand in sorted(entries, key=lambda entry: -entry[1].score):
        free = [candidate for candidate in candidates if voter not in candidate.voters]
        overlaps = iou(corners([hand.box]), corners([candidate.supporters[0].box for candidate in free]))[0]
        if free and overlaps.max() >= SAME_HAND:
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
    label = Counter(hand.label for hand in supporters).most_common(1)[0][0]  # of equals, the one counted first
    x0, y0, x1, y1 = np.median(corners([hand.box for hand in supporters]), axis=0).tolist()
    return replace(best, box=Box(x0, y0, x1, y1, best.score), label=label, votes=len(supporters))


def _distinct(ballot: Sequence[Detection]) -> list[Detection]:
    scores_n = np.array([hand.score for hand in ballot])
    return [ballot[index] for index in without_doubles(corners([hand.box for hand in ballot]), scores_n, DOUBLE)]


def with_flesh(hand: Detection, image: Picture) -> Detection:
    """A hand whose box covers the flesh around its key points."""
    box = None if hand.landmarks_n3 is None else flesh_box(hand.landmarks_n3, hand.score, image)
    return hand if box is None else replace(hand, box=box)


class _Crop(NamedTuple):
    """A square of a picture, and where its corner lies in it."""

    picture: Picture
    x: int
    y: int


def _place(hand: Detection) -> HandPlace:
    x, y = hand.centre
    return HandPlace(x, y, ARM_PER_HAND * max(hand.box.x1 - hand.box.x0, hand.box.y1 - hand.box.y0))


def _crop(image: Picture, place: HandPlace, scale: float) -> _Crop | None:
    """The square around a place, filled up with the picture's edge; None if too little of it is in the picture."""
    height, width = image.shape[:2]
    side = max(round(place.arm * scale), SMALLEST_CROP)
    x0, y0 = round(place.x - side / 2), round(place.y - side / 2)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x0 + side, width), min(y0 + side, height)
    if left >= right or top >= bottom or (right - left) * (bottom - top) < LEAST_INSIDE * side * side:
        return None
    beyond = ((top - y0, y0 + side - bottom), (left - x0, x0 + side - right), (0, 0))
    return _Crop(np.pad(image[top:bottom, left:right], beyond, mode="edge"), x0, y0)


def _moved(hand: Detection, crop: _Crop, image: Picture) -> Detection | None:
    """A crop's hand in pixels of the picture; None if it lies in what was filled up."""
    if hand.landmarks_n3 is None:
        return None
    points_n3 = hand.landmarks_n3 + np.array([crop.x, crop.y, 0], dtype=np.float32)
    box = box_around(points_n3, hand.score, image)
    return None if box is None else replace(hand, box=box, landmarks_n3=points_n3)
