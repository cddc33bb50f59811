"""Frames of faces and hands where detectors find them."""

from collections.abc import Callable, Mapping, Sequence

from fairhuman.compare.grid.zoom import ZoomFrame, choose_frames
from fairhuman.detect import FaceDetector, HandDetector, Picture, find_parts
from fairhuman.record import Box

Boxes = Mapping[str, Sequence[Box]]
Detect = Callable[[Picture], Boxes]

ZOOMED = ("face", "hand")


def detected_frames(pictures: Sequence[Picture], detect: Detect | None = None) -> list[dict[str, ZoomFrame]]:
    """The frame of the largest face and of the largest hand of each picture, by part; see `choose_frames`.

    Args:
        pictures: RGB [H, W, 3], uint8; may be decoded on demand.
        detect: finds boxes by part in a picture; by default MediaPipe's, in a process of its own.

    Raises:
        DetectorError: the detectors can't be loaded, or fail.

    """
    if detect is None:
        parts = find_parts(pictures, detectors={"face": FaceDetector, "hand": HandDetector})
        found: list[Boxes] = [{part: [one.box for one in each] for part, each in of.items()} for of in parts]
    else:
        found = [detect(picture) for picture in pictures]
    return [
        choose_frames(boxes, (picture.shape[1], picture.shape[0]), ZOOMED)
        for boxes, picture in zip(found, pictures, strict=True)
    ]
