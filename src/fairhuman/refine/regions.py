"""Further regions to redraw: found by name, or painted."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.detection import Picture
from fairhuman.detect.found_region import FoundRegion, pieces_of
from fairhuman.detect.named_regions import NamedRegions
from fairhuman.detect.settings import DetectSettings
from fairhuman.detect.worker import Failure
from fairhuman.errors import FairHumanError
from fairhuman.refine.parts import BodyPart
from fairhuman.refine.settings import PAINTED, REGION, RefineSettings


class DetectionError(FairHumanError):
    """The detectors crashed or timed out on a picture."""


RegionsDetector = Callable[[Picture, str], list[BodyPart]]  # a picture and its name


def no_regions(_: Picture, __: str) -> list[BodyPart]:
    """None: what a refinement without further regions has."""
    return []


@contextmanager
def open_regions(settings: RefineSettings) -> Iterator[RegionsDetector]:
    """Open a function that gives the regions of an upright picture, one part for each piece.

    Raises:
        DetectorError, ModelError: a model can't be loaded. By the function:
        DetectionError: the detectors crashed or timed out.
        PictureError: a painted mask can't be read, or has another size.
    """
    with ExitStack() as stack:
        finder: NamedRegions | None = None
        if settings.regions:
            detect = settings.detect or DetectSettings()
            confidence, persons = detect.mediapipe.person_confidence, detect.max_persons
            named = NamedRegions(settings.regions, settings.words, confidence, settings.upscale, persons)
            finder = stack.enter_context(named)

        def look(picture: Picture, name: str) -> list[BodyPart]:
            parts = [] if settings.masks is None else painted(Path(settings.masks), picture, name)
            if finder is not None:
                (found,) = finder.find([picture], [list(settings.regions)])
                if isinstance(found, Failure):
                    raise DetectionError(f"detection failed: {found.reason}")
                for label, region in found.items():
                    parts += _parts(label, region)
            return parts

        yield look


def painted(folder: Path, picture: Picture, name: str) -> list[BodyPart]:
    """The region of a picture's mask, the PNG of its name in `folder`: white = redraw; none without a mask.

    Raises:
        PictureError: the mask can't be read, or has another size.
    """
    file = folder / PurePosixPath(name).with_suffix(".png")
    if not file.is_file():
        return []
    mask_hw = np.asarray(decode_mask(file)) >= 128
    if mask_hw.shape != picture.shape[:2]:
        sizes = "x".join(map(str, mask_hw.shape[::-1])), "x".join(map(str, picture.shape[1::-1]))
        raise PictureError("mask has another size than its picture", f"{file}: {sizes[0]}, not {sizes[1]}")
    region = pieces_of(mask_hw.astype(np.float32), 0.5, 1.0)
    return [] if region is None else _parts(PAINTED, region)


def _parts(label: str, region: FoundRegion) -> list[BodyPart]:
    """A part for each piece, with what of the mask lies in its box."""
    parts = []
    for box in region.boxes:
        own_hw = None
        if region.mask_hw is not None:
            own_hw = np.zeros_like(region.mask_hw)
            where = slice(int(box.y0), math.ceil(box.y1)), slice(int(box.x0), math.ceil(box.x1))
            own_hw[where] = region.mask_hw[where]
        parts.append(BodyPart(REGION, box, 0.0, label, measured=False, mask_hw=own_hw))
    return parts
