"""Regions of one person from key points and the mask of the body, without a picture.

Every pixel of the person goes to the part whose bones are nearest in the picture:

    part(p) = argmin over parts k of  min over bones b of k  dist(p, b)

`head` has the line from the chin to the crown, `upper_body` the quadrilateral of shoulders and hips and the bones of
both arms, `legs` the bones from hip to ankle and the quadrilateral of hips and knees, `feet` the triangles of ankle,
heel and toe. So half of the neck belongs to the head, a skirt to the legs, and hair on the shoulders to the upper
body. `eyes`, `mouth` and the hands are outlines of their landmarks, enlarged by a margin.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from fairhuman.detect.found_region import FoundRegion, Mask, region_of

Points = NDArray[np.float32]
Array = NDArray[np.float64]
Bone = Array  # corners [N, 2] of a segment or of a convex polygon, which is filled

PERSON = 0.5  # minimum probability of a pixel of the person
VISIBLE = 0.5  # minimum visibility of a key point
SIDE = 512  # pixels: longer side at which the body is divided; the network's own mask has 256
LEAST_PIECE = 1e-4  # of the picture's area; a smaller part of the body is none

# BlazePose's key points. https://ai.google.dev/edge/mediapipe/solutions/vision/pose_landmarker
NOSE, EARS, MOUTH, EYES = 0, (7, 8), (9, 10), (2, 5)
TORSO, THIGHS = (11, 12, 24, 23), (23, 24, 26, 25)
ARMS = ((11, 13), (12, 14), (13, 15), (14, 16), (15, 17), (16, 18), (15, 19), (16, 20), (15, 21), (16, 22))
LEGS = ((23, 25), (24, 26), (25, 27), (26, 28))
FEET = ((27, 29, 31), (28, 30, 32))
# A part is there if one of these key points is visible in the picture.
ANCHORS: Mapping[str, tuple[int, ...]] = {
    "head": (NOSE, *EARS),
    "upper_body": (11, 12),
    "legs": (23, 24, 25, 26),
    "feet": (27, 28, 29, 30, 31, 32),
}

# Outlines among the 468 landmarks of a face (`mediapipe.solutions.face_mesh_connections`).
EYE_OUTLINES = (
    (362, 382, 381, 380, 374, 373, 390, 249, 263, 466, 388, 387, 386, 385, 384, 398),
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
CHIN = 152
# Margins outwards, as a share of the outline's longer side: lids and lashes, the edge of the lips, flesh.
EYE_MARGIN, MOUTH_MARGIN, HAND_MARGIN = 0.15, 0.05, 0.1


def body_regions(
    points_n3: Points, visibility_n: Points, person_hw: NDArray[np.float32], face_n3: Points | None = None
) -> dict[str, FoundRegion]:
    """`head`, `upper_body`, `legs` and `feet`, those that are in the picture; each foot has a box of its own.

    The score is the mean visibility of the part's key points that are visible.

    Args:
        points_n3: 33 key points x, y, z in pixels; they may lie outside the picture.
        visibility_n: of each, 0..1.
        person_hw: probability of each pixel of the picture of belonging to the person.
        face_n3: 468 landmarks in pixels, which place the chin; None: it is estimated from nose and mouth.
    """
    height, width = person_hw.shape
    inside_hw, scale = _reduced(person_hw)
    points_n2 = points_n3[:, :2].astype(np.float64) * scale
    chin_2 = None if face_n3 is None else face_n3[CHIN, :2].astype(np.float64) * scale
    pieces = _pieces(points_n2, chin_2)
    rows, columns, pixels_m2 = _pixels(inside_hw)
    nearest_m = np.stack([_nearest(pixels_m2, bones) for _, bones in pieces]).argmin(axis=0)
    found: dict[str, list[tuple[Mask, float]]] = {}
    for number, (part, _) in enumerate(pieces):
        seen = _seen(ANCHORS[part], points_n3, visibility_n, (width, height))
        of_piece = nearest_m == number
        if not seen or of_piece.sum() < LEAST_PIECE * inside_hw.size:
            continue
        piece_hw = np.zeros(inside_hw.shape, dtype=bool)
        piece_hw[rows[of_piece], columns[of_piece]] = True
        whole_hw = _enlarged(piece_hw, person_hw)
        found.setdefault(part, []).append((whole_hw, float(visibility_n[seen].mean())))
    return {part: region for part, masks in found.items() if (region := region_of(masks)) is not None}


def separate(people: Sequence[tuple[Points, NDArray[np.float32]]]) -> list[NDArray[np.float32]]:
    """The masks of several persons without each other's pixels: a pixel of two masks goes to the nearer bones.

    Distances are divided by the height of the person's key points or their width, whichever is larger.

    Args:
        people: of each person the 33 key points x, y, z in pixels, and the probability of each pixel of the picture of
            belonging to the person [H, W].
    """
    masks = [person_hw for _, person_hw in people]
    reduced = [_reduced(person_hw) for person_hw in masks]
    inside_phw = np.stack([inside_hw for inside_hw, _ in reduced])
    rows, columns, pixels_m2 = _pixels(inside_phw.sum(axis=0) > 1)
    if not rows.size:
        return masks
    distance_pm = np.full((len(people), len(rows)), np.inf)
    for person, (points_n3, _) in enumerate(people):
        own_m = inside_phw[person, rows, columns]
        points_n2 = points_n3[:, :2].astype(np.float64) * reduced[person][1]
        bones = [bone for _, of_part in _pieces(points_n2, None) for bone in of_part]
        distance_pm[person, own_m] = _nearest(pixels_m2[own_m], bones) / np.ptp(points_n2, axis=0).max()
    nearest_m = distance_pm.argmin(axis=0)
    for person, person_hw in enumerate(masks):
        others_hw = np.zeros(inside_phw.shape[1:], dtype=bool)
        others_hw[rows, columns] = nearest_m != person
        masks[person] = np.where(_enlarged(others_hw, person_hw), np.float32(0), person_hw)
    return masks


def face_regions(face_n3: Points, score: float, size: tuple[int, int]) -> dict[str, FoundRegion]:
    """`eyes`, one box each, and `mouth`, from 468 landmarks in pixels; `size` is (width, height) of the picture."""
    outlines = {
        "eyes": [outline_mask(face_n3[list(eye), :2], EYE_MARGIN, size) for eye in EYE_OUTLINES],
        "mouth": [outline_mask(face_n3[list(LIPS), :2], MOUTH_MARGIN, size)],
    }
    regions = {name: region_of([(mask_hw, score) for mask_hw in masks]) for name, masks in outlines.items()}
    return {name: region for name, region in regions.items() if region is not None}


def hand_region(hand_n3: Points, score: float, size: tuple[int, int]) -> FoundRegion | None:
    """A hand from 21 landmarks in pixels: their convex hull with a margin for the flesh."""
    return region_of([(outline_mask(_hull(hand_n3[:, :2]), HAND_MARGIN, size), score)])


def outline_mask(outline_n2: NDArray[np.floating[Any]], margin: float, size: tuple[int, int]) -> Mask:
    """The inside of a closed outline in pixels, and all within `margin` x its longer side of it."""
    extent = outline_n2.max(axis=0) - outline_n2.min(axis=0)
    reach = float(margin * extent.max())
    corners = [(float(x), float(y)) for x, y in outline_n2 - 0.5]  # PIL counts from the middle of a pixel
    picture = Image.new("1", size)
    draw = ImageDraw.Draw(picture)
    draw.polygon(corners, fill=1)
    draw.line([*corners, corners[0]], fill=1, width=max(round(2 * reach), 1), joint="curve")
    return np.asarray(picture)


def _reduced(person_hw: NDArray[np.float32]) -> tuple[Mask, float]:
    """The pixels of a person in a picture of at most `SIDE`, and by what it was reduced."""
    height, width = person_hw.shape
    scale = min(1.0, SIDE / max(height, width))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return np.asarray(Image.fromarray(person_hw).resize(size, Image.Resampling.BILINEAR)) >= PERSON, scale


def _enlarged(mask_hw: Mask, person_hw: NDArray[np.float32]) -> Mask:
    """A mask of the reduced picture in that of `person_hw`."""
    height, width = person_hw.shape
    return np.asarray(Image.fromarray(mask_hw).resize((width, height), Image.Resampling.NEAREST))


def _pixels(mask_hw: Mask) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
    """Rows, columns and middles x, y [M, 2] of a mask's pixels."""
    rows, columns = np.nonzero(mask_hw)
    return rows, columns, np.stack([columns, rows], axis=1).astype(np.float64) + 0.5


def _pieces(points_n2: Array, chin_2: Array | None) -> list[tuple[str, list[Bone]]]:
    """Each part, each foot by itself, and its bones."""
    ears_2, mouth_2 = points_n2[list(EARS)].mean(axis=0), points_n2[list(MOUTH)].mean(axis=0)
    chin_2 = mouth_2 + (mouth_2 - points_n2[NOSE]) if chin_2 is None else chin_2
    head = [np.stack([chin_2, 2 * ears_2 - chin_2])]  # the ears are in the middle between chin and crown
    upper = [_hull(points_n2[list(TORSO)]), *(points_n2[list(bone)] for bone in ARMS)]
    legs = [_hull(points_n2[list(THIGHS)]), *(points_n2[list(bone)] for bone in LEGS)]
    feet = [("feet", [_hull(points_n2[list(foot)])]) for foot in FEET]
    return [("head", head), ("upper_body", upper), ("legs", legs), *feet]


def _seen(anchors: Sequence[int], points_n3: Points, visibility_n: Points, size: tuple[int, int]) -> list[int]:
    """The key points that are visible in the picture."""
    inside_n = np.all((points_n3[:, :2] >= 0) & (points_n3[:, :2] < size), axis=1)
    return [index for index in anchors if visibility_n[index] >= VISIBLE and inside_n[index]]


def _nearest(pixels_m2: Array, bones: Sequence[Bone]) -> Array:
    """Distance of each pixel [M, 2] to the nearest of some bones; 0 inside a polygon."""
    return np.asarray(np.min([_distance(pixels_m2, bone) for bone in bones], axis=0))


def _distance(pixels_m2: Array, bone: Bone) -> Array:
    edges = list(zip(bone, np.roll(bone, -1, axis=0), strict=True))
    distance_m = np.min([_to_segment(pixels_m2, start_2, end_2) for start_2, end_2 in edges], axis=0)
    if len(bone) > 2:
        sides = np.stack([_side(pixels_m2, start_2, end_2) for start_2, end_2 in edges])
        distance_m = np.where((sides >= 0).all(axis=0) | (sides <= 0).all(axis=0), 0.0, distance_m)
    return np.asarray(distance_m)


def _to_segment(pixels_m2: Array, start_2: Array, end_2: Array) -> Array:
    along_2 = end_2 - start_2
    share_m = np.clip((pixels_m2 - start_2) @ along_2 / max(float(along_2 @ along_2), 1e-9), 0.0, 1.0)
    return np.asarray(np.linalg.norm(pixels_m2 - start_2 - share_m[:, None] * along_2, axis=1))


def _side(pixels_m2: Array, start_2: Array, end_2: Array) -> Array:
    (x, y), from_m2 = end_2 - start_2, pixels_m2 - start_2
    return np.asarray(x * from_m2[:, 1] - y * from_m2[:, 0])


def _hull(points_n2: NDArray[np.floating[Any]]) -> Array:
    """Corners of the convex hull of points [N, 2], in order."""
    import cv2

    corners_k1 = cv2.convexHull(points_n2.astype(np.float32), returnPoints=False)
    return np.asarray(points_n2[corners_k1[:, 0]], dtype=np.float64)
