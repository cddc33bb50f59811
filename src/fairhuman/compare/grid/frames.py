"""Close-up frames around detected faces and hands."""

from collections.abc import Callable, Mapping, Sequence

from fairhuman.compare.grid.zoom import ZoomFrame, can_frame, choose_frames
from fairhuman.detect.detection import Picture
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.rates import find_parts
from fairhuman.record import Box

Boxes = Mapping[str, Sequence[Box]]
Detect = Callable[[Picture], Boxes]

ZOOMED = ("face", "hand")


def detected_frames(pictures: Sequence[Picture], detect: Detect | None = None) -> list[dict[str, ZoomFrame]]:
    """Frames of the largest face and the largest hand of each picture, by part; see `choose_frames`.

    Args:
        pictures: RGB [H, W, 3], uint8; may be decoded lazily.
        detect: returns boxes by part in a picture; by default MediaPipe's detectors in a separate process.

    Raises:
        DetectorError: the detectors can't be loaded, or fail.
    """
    if detect is None:
        parts = find_parts(pictures, detectors={"face": FaceDetector, "hand": HandDetector})
        found: list[Boxes] = [{part: [one.box for one in each] for part, each in of.items()} for of in parts]
    else:
        found = [detect(picture) for picture in pictures]
    frames = []
    for boxes, picture in zip(found, pictures, strict=True):
        size = picture.shape[1], picture.shape[0]
        # a detector may guess a part whose centre lies outside the picture
        inside = {part: [one for one in each if can_frame(one, size)] for part, each in boxes.items()}
        frames.append(choose_frames(inside, size, ZOOMED))
    return frames
