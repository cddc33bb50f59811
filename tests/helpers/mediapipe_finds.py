"""What MediaPipe 0.10.21 itself finds in a picture, to compare our detectors with.

`python tests/helpers/mediapipe_finds.py` writes `tests/detect/mediapipe.json`, where MediaPipe is installed: what it
finds in the rendered people of `tests/begun/people`, enlarged four times.
"""

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as parquet
from PIL import Image

from fairhuman.detect.bundled import LOG_NOISE
from fairhuman.detect.detection import Detection, Picture
from fairhuman.detect.scale import enlarge
from fairhuman.utils.native_stderr import without_lines

HERE = Path(__file__).parent.parent
REFERENCES = HERE / "detect" / "mediapipe.json"
SIDES = {"Left": "right hand", "Right": "left hand"}  # MediaPipe assumes a mirrored picture


class Found(NamedTuple):
    """One found object; a box where it isn't that of the points."""

    label: str
    score: float
    points_n3: np.ndarray
    box: tuple[float, ...] | None = None


def rendered_people() -> Iterator[tuple[str, Picture]]:
    for file in sorted((HERE / "begun" / "people").rglob("*.parquet")):
        for number, cell in enumerate(parquet.read_table(file, columns=["image"])["image"].to_pylist()):
            with Image.open(io.BytesIO(cell["bytes"])) as image:
                yield str(number), enlarge(np.asarray(image.convert("RGB")), 4)[0]


class MediaPipe:
    """All graphs of MediaPipe that our detectors stand for, in static mode."""

    def __enter__(self) -> "MediaPipe":
        from mediapipe import solutions

        with ExitStack() as stack, without_lines(LOG_NOISE):
            static = {"static_image_mode": True, "model_complexity": 1}
            self._faces = stack.enter_context(solutions.face_detection.FaceDetection(0.5, model_selection=1))
            self._hands = stack.enter_context(solutions.hands.Hands(**static, max_num_hands=4))
            self._pose = stack.enter_context(solutions.pose.Pose(**static, enable_segmentation=True))
            self._holistic = stack.enter_context(solutions.holistic.Holistic(**static))
            self._open = stack.pop_all()
            self.find(np.zeros((64, 64, 3), np.uint8))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def find(self, picture: Picture) -> dict[str, list[Found]]:
        """Faces, hands, the person, and the parts of the person: `holistic`."""
        height, width = picture.shape[:2]
        scale_3 = np.array([width, height, width], np.float32)

        def points(landmarks: Any) -> np.ndarray:
            return np.array([(p.x, p.y, getattr(p, "z", 0)) for p in landmarks], np.float32) * scale_3

        faces = []
        for face in self._faces.process(picture).detections or ():
            box = face.location_data.relative_bounding_box
            low, size = np.array([box.xmin, box.ymin]), np.array([box.width, box.height])
            corners = np.concatenate([low, low + size]) * [width, height, width, height]
            found = points(face.location_data.relative_keypoints)
            faces.append(Found("face", face.score[0], found, tuple(corners.tolist())))
        seen = self._hands.process(picture)
        sides = [one.classification[0] for one in seen.multi_handedness or ()]
        hands = [
            Found(SIDES[side.label], side.score, points(hand.landmark))
            for hand, side in zip(seen.multi_hand_landmarks or (), sides, strict=True)
        ]
        persons = []
        seen = self._pose.process(picture)
        if seen.pose_landmarks is not None:
            inside = seen.segmentation_mask >= 0.5
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            person = float(np.mean([point.visibility for point in seen.pose_landmarks.landmark]))
            around = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if rows.size else (0, 0, 0, 0)
            persons.append(Found("person", person, points(seen.pose_landmarks.landmark), tuple(map(float, around))))
        self._holistic.process(np.zeros((64, 64, 3), np.uint8))  # it starts from hands of the picture before
        seen = self._holistic.process(picture)
        parts = {"left hand": seen.left_hand_landmarks, "right hand": seen.right_hand_landmarks}
        parts["face"] = seen.face_landmarks
        holistic = [Found(label, 0.0, points(part.landmark)) for label, part in parts.items() if part is not None]
        return {"face": faces, "hand": hands, "person": persons, "holistic": holistic}


def read_references() -> dict[str, dict[str, list[Found]]]:
    def found(label: str, score: float, points: list[list[float]], box: list[float] | None) -> Found:
        return Found(label, score, np.array(points, np.float32), None if box is None else tuple(box))

    stored = json.loads(REFERENCES.read_text(encoding="utf-8"))
    return {name: {part: [found(*one) for one in each] for part, each in of.items()} for name, of in stored.items()}


def differences(ours: Detection | Found, theirs: Found) -> tuple[float, float, float]:
    """Of box in pixels, points in shares of the longer side of the box around them, score."""
    points = ours.landmarks_n3 if isinstance(ours, Detection) else ours.points_n3
    assert points is not None
    box = 0.0
    if theirs.box is not None and isinstance(ours, Detection):
        theirs_4 = np.array(theirs.box)
        ours_4 = np.array([ours.box.x0, ours.box.y0, ours.box.x1, ours.box.y1])
        inside = ours_4 > 0  # ours are clipped to the picture
        box = float(np.abs(ours_4 - theirs_4)[inside].max(initial=0))
    apart = np.abs(points - theirs.points_n3)[:, :2].max()
    return box, float(apart / long_side(theirs.points_n3)), abs(ours.score - theirs.score)


def long_side(points_n3: np.ndarray) -> float:
    """The longer side of the box around points."""
    return float(np.ptp(points_n3[:, :2], axis=0).max())


def main() -> None:
    with MediaPipe() as mediapipe:
        stored = {
            name: {
                part: [(one.label, one.score, one.points_n3.round(2).tolist(), one.box) for one in found]
                for part, found in mediapipe.find(picture).items()
            }
            for name, picture in rendered_people()
        }
    text = json.dumps(stored, indent=None, default=float).replace('}, "', '},\n"')
    REFERENCES.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
