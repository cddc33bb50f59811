"""The vote of five: its rules on written ballots, and that it finds more than one pass on people and photos."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.detect import hand_vote
from fairhuman.detect.detection import Detection, Picture
from fairhuman.detect.hand_vote import HandPlace, HandVote, _crop, elect
from fairhuman.detect.hands import HandDetector, box_with_flesh
from fairhuman.detect.overlap import corners, iou
from fairhuman.record import Box


def hand(x: float, y: float, score: float = 0.9, label: str = "left hand", side: float = 20) -> Detection:
    points = np.array([[x, y, 0], [x + side, y + side, 0]], dtype=np.float32)
    return Detection(Box(x, y, x + side, y + side, score), label, points)


def test_hands_found_by_two_passes_are_kept_and_by_one_are_not() -> None:
    ballots = [[hand(0, 0, 0.7), hand(100, 0)], [], [hand(2, 2, 0.8)], [hand(0, 50)], []]
    (kept,) = elect(ballots, 2)
    assert kept.votes == 2
    assert kept.box == Box(1, 1, 21, 21, 0.8)  # the median of both, with the better score
    assert kept.landmarks_n3 is not None
    assert kept.landmarks_n3[0, 0] == 2  # the better look's points
    assert [one.votes for one in elect(ballots, 1)] == [2, 1, 1]
    assert elect(ballots, 3) == elect([[], []], 1) == elect([], 1) == []


def test_one_pass_never_votes_twice_for_a_hand() -> None:
    twice = [hand(0, 0, 0.9), hand(9, 0, 0.8)]  # IoU 0.38: too little to be one, enough to be matched
    assert [one.votes for one in elect([twice, []], 1)] == [1, 1]
    doubles = [hand(0, 0, 0.9), hand(1, 0, 0.8)]
    assert [one.votes for one in elect([doubles, []], 1)] == [1]
    near, far = elect([twice, [hand(8, 0, 0.5)], [hand(0, 0, 0.4)]], 2)
    assert (near.votes, far.votes) == (2, 2)
    assert (near.box.x0, far.box.x0) == (0, 8.5)


def test_the_side_is_the_majority_s_and_in_a_tie_the_best_pass_s() -> None:
    left, right = hand(0, 0, 0.9), hand(0, 0, 0.5, "right hand")
    assert elect([[left], [right]], 2)[0].label == "left hand"
    assert elect([[left], [right], [right]], 2)[0].label == "right hand"


def test_the_order_of_passes_changes_nothing() -> None:
    ballots = [[hand(0, 0, 0.7)], [hand(3, 1, 0.95), hand(60, 60, 0.6)], [hand(61, 59, 0.65)], [hand(5, 2, 0.8)]]
    results = [
        [(one.box, one.votes, one.label) for one in elect(order, 2)]
        for order in (ballots, ballots[::-1], ballots[2:] + ballots[:2])
    ]
    assert results[0] == results[1] == results[2]
    assert [votes for _, votes, _ in results[0]] == [3, 2]


def test_a_crop_is_centred_and_padded_beyond_the_edge() -> None:
    image = np.arange(100 * 80 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 80, 3)
    inside = _crop(image, HandPlace(40, 50, 20), 1.0)
    assert inside is not None
    assert (inside.x, inside.y) == (30, 40)
    assert np.array_equal(inside.picture, image[40:60, 30:50])
    corner = _crop(image, HandPlace(0, 0, 20), 2.0)
    assert corner is not None
    assert corner.picture.shape == (40, 40, 3)
    assert np.array_equal(corner.picture[20:, 20:], image[:20, :20])
    assert (corner.picture[:20, :20] == image[0, 0]).all()
    assert _crop(image, HandPlace(-30, 50, 20), 1.0) is None
    assert _crop(image, HandPlace(40, 50, 4000), 1.0) is None  # never much larger than the picture


def test_the_box_covers_the_flesh_and_stays_in_the_picture() -> None:
    image = np.zeros((50, 100, 3), dtype=np.uint8)
    points = np.array([[10, 20, 0], [50, 40, 3]], dtype=np.float32)
    assert box_with_flesh(points, 0.5, image) == Box(6, 16, 54, 44, 0.5)
    assert box_with_flesh(points + np.float32(-15), 0.5, image) == Box(0, 1, 39, 29, 0.5)
    assert box_with_flesh(points + np.float32(500), 0.5, image) is None


@pytest.fixture(scope="module")
def vote() -> Iterator[HandVote]:
    with HandVote() as detector:
        yield detector


def photo(shared: Path, name: str) -> Picture:
    with Image.open(shared / "data" / "wholebody" / "images" / name) as image:
        return np.asarray(image.convert("RGB"))


def test_a_photo_s_hands_have_votes_sides_and_points(shared: Path, vote: HandVote) -> None:
    picture = photo(shared, "panoptic_ex2_2.flv_000040_l.jpg")
    hands = vote.detect(picture)
    assert {one.label for one in hands} == {"left hand", "right hand"}
    for one in hands:
        assert one.source.startswith("mediapipe-")
        assert one.source.endswith(" hands vote")
        assert one.votes is not None
        assert 2 <= one.votes <= 5
        assert one.landmarks_n3 is not None
        assert one.landmarks_n3.shape == (21, 3)
        height, width = picture.shape[:2]
        assert 0 <= one.box.x0 < one.box.x1 <= width
        assert 0 <= one.box.y0 < one.box.y1 <= height


def test_results_do_not_depend_on_the_pictures_before(shared: Path, vote: HandVote) -> None:
    names = ("panoptic_ex2_2.flv_000040_l.jpg", "coco_000000000785.jpg", "panoptic_ex2_2.flv_000040_l.jpg")
    pictures = [photo(shared, name) for name in names]
    pictures.insert(2, np.roll(pictures[0], 3, axis=1))
    forwards, backwards = (
        [[(one.box, one.votes) for one in vote.detect(picture)] for picture in order]
        for order in (pictures, pictures[::-1])
    )
    assert forwards == backwards[::-1]
    assert forwards[0] == forwards[3] != forwards[2]


def test_a_close_up_without_a_person_gets_more_than_one_pass(shared: Path, vote: HandVote) -> None:
    names = sorted(path.name for path in (shared / "data" / "wholebody" / "images").glob("*rhd*"))
    assert names
    found = [vote.detect(photo(shared, name)) for name in names]
    with HandDetector() as plain:
        assert sum(map(bool, found)) >= sum(bool(plain.detect(photo(shared, name))) for name in names) > 0


def test_a_brief_vote_finds_the_same_hands_by_fewer_crops(
    shared: Path, vote: HandVote, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture, cut = photo(shared, "panoptic_ex2_2.flv_000040_l.jpg"), []

    def counted(image: Picture, place: HandPlace, scale: float) -> object:
        cut.append(place)
        return _crop(image, place, scale)

    monkeypatch.setattr(hand_vote, "_crop", counted)
    whole, crops = vote.detect(picture), len(cut)
    with HandVote(brief=True) as detector:
        brief = detector.detect(picture)
    assert len(cut) - crops < crops
    assert {one.label for one in brief} == {one.label for one in whole}
    assert all(iou(corners([one.box]), corners([hand.box for hand in whole])).max() > 0.7 for one in brief)


@pytest.mark.parametrize("size", [(1, 1), (3, 3000), (256, 256)])
def test_nothing_is_found_in_a_blank_picture(size: tuple[int, int], vote: HandVote) -> None:
    assert vote.detect(np.full((*size, 3), 200, dtype=np.uint8)) == []


def test_bad_input_and_settings_are_refused_and_closing_twice_is_fine() -> None:
    with pytest.raises(ValueError, match=r"votes must be in 1\.\.5, not 6"):
        HandVote(votes=6)
    with pytest.raises(ValueError, match="max_hands must be at least 1"):
        HandVote(max_hands=0)
    with HandVote() as detector, pytest.raises(ValueError, match=r"uint8 \(0\.\.255\), not float32"):
        detector.detect(np.zeros((8, 8, 3), dtype=np.float32))  # type: ignore[arg-type]
    detector.close()
    with pytest.raises(ValueError, match="is closed"):
        detector.detect(np.zeros((8, 8, 3), dtype=np.uint8))
