"""Parts of the body of every person with the bundled models: no download."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fairhuman.detect.body import Body
from fairhuman.detect.body_regions import EYES, MOUTH, body_regions, face_regions, hand_region, separate
from fairhuman.detect.bundled import Array, BundledModel
from fairhuman.detect.detection import Picture, check_picture
from fairhuman.detect.found_region import BODY_PARTS, FoundRegion, of_persons, shrunk
from fairhuman.detect.holistic import HANDS, BodyFace, BodyHands
from fairhuman.detect.people import PeopleFinder
from fairhuman.detect.scale import enlarge


class PartNetworks(NamedTuple):
    """What finds bodies, and on each the face and the hands."""

    people: PeopleFinder
    face: BodyFace
    hands: BodyHands


class BodyParts(BundledModel[PartNetworks]):
    """Head, upper body, legs, feet, eyes, mouth and both hands of every person.

    The score is the visibility of the part's key points: of both eyes, of the corners of the mouth, of the wrist. Left
    and right are the person's own. No pixel is of two persons' head, upper body, legs or feet.

    Args:
        confidence: minimum score of a person, 0..1.
        upscale: factor by which pictures of up to 256 px are enlarged first.
        persons: maximum number of persons.
    """

    MODEL = "body parts"

    def __init__(self, confidence: float = 0.5, upscale: int = 1, persons: int = 8) -> None:
        super().__init__(lambda: PartNetworks(PeopleFinder(), BodyFace(), BodyHands()), confidence)
        self._upscale, self._persons = upscale, persons

    def find(self, image: Picture) -> dict[str, FoundRegion]:
        """The parts in a picture [H, W, 3] that are found, by their names in `BODY_PARTS`; none without a person."""
        larger, factor = enlarge(check_picture(image), self._upscale)
        found = ((name, shrunk(region, factor)) for name, region in self._find(larger).items())
        return {name: region for name, region in found if region is not None}

    def _find(self, image: Picture) -> dict[str, FoundRegion]:
        people = self.networks.people.find(image, self.confidence, self._persons)
        masks = separate([(body.points_n3, body.mask(image)) for body in people]) if people else []
        each = [self._of_person(image, body, mask_hw) for body, mask_hw in zip(people, masks, strict=True)]
        found = ((name, of_persons([parts.get(name) for parts in each])) for name in BODY_PARTS)
        return {name: region for name, region in found if region is not None}

    def _of_person(self, image: Picture, body: Body, person_hw: Array) -> dict[str, FoundRegion]:
        visibility_n, size = body.visibility_n, (image.shape[1], image.shape[0])
        face_n3 = self.networks.face.find(image, body)
        found = body_regions(body.points_n3, visibility_n, person_hw, face_n3)
        if face_n3 is not None:
            found |= face_regions(face_n3, float(visibility_n[[*EYES, *MOUTH]].mean()), size)
        for label, hand_n3 in self.networks.hands.find(image, body).items():
            region = hand_region(hand_n3, float(visibility_n[HANDS[label][0]]), size)
            if region is not None:
                found[label.replace(" ", "_")] = region
        return found


@contextmanager
def open_body_parts(
    confidence: float, upscale: int, persons: int
) -> Iterator[Callable[[Picture], dict[str, FoundRegion]]]:
    """Load the networks; the `start` of a guarded process."""
    with BodyParts(confidence, upscale, persons) as parts:
        yield parts.find
