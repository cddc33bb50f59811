"""Parts of the most prominent person with the bundled models: no download."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fairhuman.detect.body import BodyFinder
from fairhuman.detect.body_regions import EYES, MOUTH, body_regions, face_regions, hand_region
from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Picture, check_picture
from fairhuman.detect.found_region import FoundRegion, shrunk
from fairhuman.detect.holistic import HANDS, BodyFace, BodyHands
from fairhuman.detect.scale import enlarge


class PartNetworks(NamedTuple):
    """What finds a body, and on it the face and the hands."""

    bodies: BodyFinder
    face: BodyFace
    hands: BodyHands


class BodyParts(BundledModel[PartNetworks]):
    """Head, upper body, legs, feet, eyes, mouth and both hands of the most prominent person.

    The score is the visibility of the part's key points: of both eyes, of the corners of the mouth, of the wrist. Left
    and right are the person's own.

    Args:
        confidence: minimum score of a person, 0..1.
        upscale: factor by which pictures of up to 256 px are enlarged first.
    """

    MODEL = "body parts"

    def __init__(self, confidence: float = 0.5, upscale: int = 1) -> None:
        super().__init__(lambda: PartNetworks(BodyFinder(), BodyFace(), BodyHands()), confidence)
        self._upscale = upscale

    def find(self, image: Picture) -> dict[str, FoundRegion]:
        """The parts in a picture [H, W, 3] that are found, by their names in `BODY_PARTS`; none without a person."""
        larger, factor = enlarge(check_picture(image), self._upscale)
        found = ((name, shrunk(region, factor)) for name, region in self._find(larger).items())
        return {name: region for name, region in found if region is not None}

    def _find(self, image: Picture) -> dict[str, FoundRegion]:
        body = self.networks.bodies.find(image, self.confidence)
        if body is None:
            return {}
        visibility_n, size = body.visibility_n, (image.shape[1], image.shape[0])
        face_n3 = self.networks.face.find(image, body)
        found = body_regions(body.points_n3, visibility_n, body.mask(image), face_n3)
        if face_n3 is not None:
            found |= face_regions(face_n3, float(visibility_n[[*EYES, *MOUTH]].mean()), size)
        for label, hand_n3 in self.networks.hands.find(image, body).items():
            region = hand_region(hand_n3, float(visibility_n[HANDS[label][0]]), size)
            if region is not None:
                found[label.replace(" ", "_")] = region
        return found


@contextmanager
def open_body_parts(confidence: float, upscale: int) -> Iterator[Callable[[Picture], dict[str, FoundRegion]]]:
    """Load the networks; the `start` of a guarded process."""
    with BodyParts(confidence, upscale) as parts:
        yield parts.find
