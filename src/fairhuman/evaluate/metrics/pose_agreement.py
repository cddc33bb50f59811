"""Agreement with the requested pose: object keypoint similarity (OKS) of requested and detected keypoints.

    OKS = mean over requested points i of exp(-d_i² / (2 s² k_i²)),  k_i = 2 σ_i

d_i is the distance in pixels between the requested and the detected point, s² the area of the box around the requested
points, and σ_i the annotators' standard deviation for that point (COCO keypoint evaluation,
https://cocodataset.org/#keypoints-eval; COCO takes s² from the person's segmentation, which isn't known here). The
points are COCO's 17, without OpenPose's neck. Requested points outside the picture are ignored, occluded ones count.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairhuman.data.condition.people import PersonPose, person_from_mediapipe
from fairhuman.detect.bundled import SOURCE
from fairhuman.detect.detection import Picture, check_picture
from fairhuman.detect.guard import guarded_results
from fairhuman.detect.pose import PoseDetector
from fairhuman.detect.scale import enlarge, scale_back
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.requested import nan_for_none, requested_poses
from fairhuman.evaluate.results import EvaluationResults, Methods, Metric
from fairhuman.evaluate.tools import EvaluationTools, by_method

VERSION = 1  # of `detect_poses`, part of the cache's name
# In OpenPose's order without the neck: nose; right shoulder, elbow, wrist; the same on the left; hips, knees, ankles of
# either side; eyes; ears.
SIGMAS = np.array([0.026, *(0.079, 0.072, 0.062) * 2, *(0.107, 0.087, 0.089) * 2, 0.025, 0.025, 0.035, 0.035])
_NECK = 1
Points = NDArray[np.float32]
METRIC = Metric(
    "pose agreement (OKS)",
    "higher",
    "similarity of requested and detected keypoints, 0..1, over pictures with a requested pose; 0 if nobody is found",
    "all but the one person that MediaPipe detects, hands and faces, and the quality of the picture",
    by_picture=True,
    judges="match with the pose",
)


def keypoint_similarity(asked: PersonPose, found_n3: Points, size: tuple[int, int]) -> float | None:
    """OKS of a requested person and detected body points [18, 3] in a picture of (width, height).

    None if fewer than two requested points lie within the picture, or if all coincide, since the scale is undefined
    then.
    """
    keep = np.arange(len(asked.body)) != _NECK
    points_n3 = asked.body[keep].astype(np.float64)
    inside = (points_n3[:, 2] > 0) & (points_n3[:, :2] >= 0).all(axis=1) & (points_n3[:, :2] <= size).all(axis=1)
    spread = np.ptp(points_n3[inside, :2], axis=0) if inside.any() else np.zeros(2)
    area = float(spread.prod())
    if inside.sum() < 2 or area <= 0:
        return None
    squares_n = np.square(points_n3[:, :2] - found_n3[keep, :2]).sum(axis=1)
    return float(np.exp(-squares_n / (2 * area * np.square(2 * SIGMAS)))[inside].mean())


def pose_agreement(asked: Sequence[PersonPose], found_n3: Points | None, size: tuple[int, int]) -> float | None:
    """OKS of the detected person and the best-matching requested one; None if nobody was requested."""
    nobody = np.full((18, 3), np.inf, np.float32)
    scores = [keypoint_similarity(person, nobody if found_n3 is None else found_n3, size) for person in asked]
    known = [score for score in scores if score is not None]
    return max(known) if known else None


def measure_pose_agreement(
    methods: Methods,
    reference: Sequence[EvalImage] | None,
    against: str | None,
    tools: EvaluationTools,
    found: EvaluationResults,
) -> None:
    """Mean OKS over pictures with a requested pose."""
    asked = requested_poses(methods, reference)
    if not any(pose is not None for poses in asked.values() for pose in poses):
        found.warnings.append(
            f"no {METRIC.name}: no picture has a requested pose (fairhuman sample --control pose=... "
            "writes keypoints into the picture; data sets have a column `pose`)"
        )
        return
    scores = {}
    poses = by_method(methods, lambda pictures: detect_poses(pictures, tools))
    for method, pictures in methods.items():
        values = []
        for picture, pose, points in zip(pictures, asked[method], poses[method], strict=True):
            size = (picture.record.width, picture.record.height)
            values.append(None if pose is None else pose_agreement(pose.scaled_to(size), points, size))
        scores[method] = nan_for_none(values), np.ones(len(values))
    found.add_scores(METRIC, scores, methods, against)


def detect_poses(pictures: Sequence[EvalImage], tools: EvaluationTools) -> list[Points | None]:
    """Body points [18, 3] of the person in each picture, cached; None if nobody is found."""
    upscale = tools.settings.upscale
    kind = f"pose-{VERSION}-{SOURCE}-x{upscale}"
    look = partial(guarded_results, partial(_finder, upscale), workers=tools.settings.workers)
    return tools.cached_detections(kind, pictures, look, _dump, _load)


@contextmanager
def _finder(upscale: int) -> Iterator[Callable[[Picture], Points | None]]:
    with PoseDetector() as detector:

        def find(picture: Picture) -> Points | None:
            image, factor = enlarge(check_picture(picture), upscale)
            people = [scale_back(one, factor) for one in detector.detect(image)]
            if not people or people[0].landmarks_n3 is None:
                return None
            landmarks_n3 = np.asarray(people[0].landmarks_n3, np.float64).copy()
            landmarks_n3[:, 2] = 1.0  # keep all: MediaPipe estimates occluded points, which the requested pose has too
            return person_from_mediapipe(landmarks_n3).body

        yield find


def _dump(points: Points | None) -> Any:
    return None if points is None else points.round(2).tolist()


def _load(value: Any) -> Points | None:
    return None if value is None else np.array(value, np.float32)
