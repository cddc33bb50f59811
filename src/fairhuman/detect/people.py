"""All persons of a picture with the bundled models, which are made for one.

The pose detector sees a picture of 224 px, and of a group mostly one or two. So after the whole picture it looks at
squares of it, and the pose network looks below each face that belongs to nobody yet.
"""

import math
from collections.abc import Iterator

import numpy as np

from fairhuman.detect.anchors import FACES, AnchorDetector
from fairhuman.detect.body import Body, BodyFinder
from fairhuman.detect.bundled import Array
from fairhuman.detect.detection import Picture
from fairhuman.detect.faces import LEAST
from fairhuman.detect.region import Region, around

HEAD = slice(0, 11)  # BlazePose's key points of the head
# The first square around an adult who stands, in heights of the face's box, which reaches from the brows to the chin.
PERSON_PER_FACE, HIPS_BELOW_FACE = 13.0, 4.3
# Largest side of the squares / longer side of the picture. In smaller ones clothes and bags are taken for persons.
SQUARE = 0.7
SAME_PERSON = 0.08  # mean distance of the key points of two bodies that are one person's / side of the smaller region


class PeopleFinder:
    """Finds persons: `BodyFinder`'s own first, then those whose faces are found, the largest first, then others.

    Nobody's head is on somebody else: what is found there is that person once more.
    """

    def __init__(self) -> None:
        self._bodies, self._faces = BodyFinder(), AnchorDetector(FACES)

    def find(self, image: Picture, confidence: float = 0.5, most: int = 8) -> list[Body]:
        """Up to `most` persons in a picture [H, W, 3], each detected with a score of at least `confidence` in 0..1."""
        found: list[Body] = []
        for body in self._candidates(image, confidence, found):
            if not any(_same(body, other) for other in found):
                found.append(body)
            if len(found) == most:
                break
        return found

    def _candidates(self, image: Picture, confidence: float, found: list[Body]) -> Iterator[Body]:
        """Bodies, looked for while fewer are found than wanted."""
        yield from self._looked_at(image, self._bodies.places(image, confidence))
        faces = sorted((face.box_4 for face in self._faces.find(image, LEAST)), key=lambda box_4: box_4[1] - box_4[3])
        for box_4 in faces:
            if not any(_has_face(body, box_4) for body in found):
                rough = self._bodies.look(image, _below_face(box_4))
                body = None if rough is None else self._bodies.look(image, rough.aligned)
                if body is not None and _has_face(body, box_4):
                    yield body
        for square in squares(image):
            yield from self._looked_at(image, self._bodies.places(image, confidence, square))

    def _looked_at(self, image: Picture, places: list[Region]) -> Iterator[Body]:
        for place in places:
            body = self._bodies.look(image, place)
            if body is not None:
                yield body


def squares(image: Picture) -> list[Region]:
    """Squares that cover a picture, of which neighbours share two thirds or more."""
    height, width = image.shape[:2]
    side = min(height, width, SQUARE * max(height, width))

    def middles(length: int) -> list[float]:
        steps = math.ceil((length - side) / (side / 3))
        return [side / 2 + step * (length - side) / max(steps, 1) for step in range(steps + 1)]

    return [Region(x, y, side, 0.0) for y in middles(height) for x in middles(width)]


def _below_face(box_4: Array) -> Region:
    x0, y0, x1, y1 = box_4.tolist()
    height = y1 - y0
    return around((x0 + x1) / 2, (y0 + y1) / 2, height, height, 0.0, scale=PERSON_PER_FACE, up=-HIPS_BELOW_FACE)


def _head(body: Body) -> tuple[float, float]:
    x, y = body.points_n3[HEAD, :2].mean(axis=0).tolist()
    return x, y


def _has_face(body: Body, box_4: Array) -> bool:
    x, y = _head(body)
    return bool(box_4[0] <= x <= box_4[2] and box_4[1] <= y <= box_4[3])


def _same(body: Body, other: Body) -> bool:
    distance = np.linalg.norm(body.points_n3[:, :2] - other.points_n3[:, :2], axis=1).mean()
    return other.covers(*_head(body)) or bool(distance < SAME_PERSON * min(body.region.side, other.region.side))
