"""Whether pictures show the pose and depth that they were asked for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.stats import spearmanr

from fairhuman import config
from fairhuman.data.condition.depth_model import DepthEstimator
from fairhuman.data.condition.people import PersonPose, people_to_list, person_from_coco
from fairhuman.errors import DataError
from fairhuman.evaluate.metrics.depth_agreement import _fingerprint, rank_correlation
from fairhuman.evaluate.metrics.pose_agreement import SIGMAS, keypoint_similarity, pose_agreement
from fairhuman.evaluate.run import Evaluation, EvaluationInputs, evaluate
from fairhuman.evaluate.settings import EvaluateSettings
from helpers.tiny_depth import save_depth_model

# COCO's own constants, in COCO's order: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
COCO = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000


def coco_points(seed: int = 0) -> np.ndarray:
    """17 points in a picture of 100 x 80."""
    generator = np.random.default_rng(seed)
    return np.column_stack([generator.uniform(5, 95, 17), generator.uniform(5, 75, 17), np.ones(17)])


def test_the_similarity_is_cocos() -> None:
    asked, found = coco_points(), coco_points()
    found[:, :2] += np.random.default_rng(1).normal(0, 4, (17, 2))
    area = np.ptp(asked[:, 0]) * np.ptp(asked[:, 1])
    terms = [
        math.exp(-((a[0] - f[0]) ** 2 + (a[1] - f[1]) ** 2) / (2 * area * (2 * sigma) ** 2))
        for a, f, sigma in zip(asked, found, COCO, strict=True)
    ]
    ours = keypoint_similarity(person_from_coco(asked), person_from_coco(found).body, (100, 80))
    assert ours == pytest.approx(sum(terms) / 17, rel=1e-4)
    assert sorted(SIGMAS) == sorted(COCO)


def test_scale_changes_nothing_and_distance_lowers_it() -> None:
    asked, found = coco_points(), coco_points()
    found[:, 0] += 3

    def similarity(scale: float, shift: float = 0.0) -> float:
        a, b = asked * [scale, scale, 1], (found + np.array([shift, 0, 0])) * [scale, scale, 1]
        value = keypoint_similarity(person_from_coco(a), person_from_coco(b).body, (int(100 * scale), int(80 * scale)))
        assert value is not None
        return value

    assert similarity(1.0) == pytest.approx(similarity(8.0), rel=1e-4)
    assert 1.0 > similarity(1.0) > similarity(1.0, 5.0) > similarity(1.0, 30.0) > 0
    same = person_from_coco(asked)
    assert keypoint_similarity(same, same.body, (100, 80)) == 1.0


def test_what_counts_of_a_pose() -> None:
    points = coco_points()
    outside = points.copy()
    outside[5:, 0] += 1000  # only the face is asked for within the picture
    found = points.copy()
    found[5:, :2] = 0
    assert keypoint_similarity(person_from_coco(outside), person_from_coco(found).body, (100, 80)) == pytest.approx(1)
    one = np.zeros((17, 3))
    one[0] = (5, 5, 1)
    body = person_from_coco(points).body
    assert keypoint_similarity(person_from_coco(one), body, (100, 80)) is None
    assert pose_agreement([], body, (100, 80)) is None
    asked = [person_from_coco(coco_points(3)), person_from_coco(points)]
    assert pose_agreement(asked, body, (100, 80)) == 1.0, "that of the one it agrees with best"
    assert pose_agreement(asked, None, (100, 80)) == 0.0


def test_the_rank_correlation_is_spearmans() -> None:
    generator = np.random.default_rng(0)
    a = generator.integers(0, 9, (12, 7))
    b = a + generator.normal(0, 3, a.shape)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1.0)
    assert rank_correlation(a, -a) == pytest.approx(-1.0)
    assert rank_correlation(np.ones((3, 3)), generator.random((3, 3))) is None
    assert rank_correlation(generator.random((3, 3)), np.ones((3, 3))) == 0.0


def save(path: Path, prompt: str, number: int, seed: int, **texts: str) -> None:
    info = PngInfo()
    for name, value in {"prompt": prompt, "prompt_index": str(number), **texts}.items():
        info.add_itxt(name, value)
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path, pnginfo=info)


def measured(folder: Path, *methods: str, options: tuple[str, ...], reference: Path | None = None) -> Evaluation:
    job = EvaluationInputs({name: folder / name for name in methods}, None, reference, None, folder / "cache")
    done = evaluate(job, config.build(EvaluateSettings, {}, (*options, "upscale=1")), folder / "out")
    assert done is not None
    return done


def asked_text() -> str:
    return json.dumps(people_to_list([person_from_coco(coco_points() * [0.6, 0.6, 1])]))


def test_methods_without_control_are_held_against_what_the_others_were_asked_for(tmp_path: Path) -> None:
    """MediaPipe itself; it finds nobody in noise, which counts 0 where a pose was asked for."""
    for number in range(3):
        texts = {"asked_pose": asked_text()} if number < 2 else {}
        save(tmp_path / "steered" / f"{number}.png", f"p{number}", number, number, **texts)
        save(tmp_path / "free" / f"{number}.png", f"p{number}", number, 10 + number)
    done = measured(tmp_path, "steered", "free", options=("metrics=[pose_agreement]",))
    assert [(one.method, one.measured.value, one.measured.n) for one in done.found.results] == [
        ("steered", 0.0, 2),
        ("free", 0.0, 2),
    ]
    assert len(done.found.contrasts) == 1


def test_what_is_missing_for_a_measure_is_said(tmp_path: Path) -> None:
    save(tmp_path / "free" / "0.png", "p", 0, 0)
    done = measured(tmp_path, "free", options=("metrics=[pose_agreement,depth_agreement]",))
    assert not done.found.results
    assert any("no picture has a requested pose" in text for text in done.found.warnings)
    assert any("no picture has a requested depth" in text for text in done.found.warnings)
    save(tmp_path / "free" / "0.png", "p", 0, 0, asked_depth=depth_text(np.arange(48 * 64).reshape(48, 64)))
    done = measured(tmp_path, "free", options=("metrics=[depth_agreement]",))
    assert any("depth.model=" in text for text in done.found.warnings)
    save(tmp_path / "free" / "0.png", "p", 0, 0, asked_pose='[{"legs": 3}]')
    with pytest.raises(DataError, match=r"0.png: its requested pose or depth can't be read: .*legs"):
        measured(tmp_path, "free", options=("metrics=[pose_agreement]",))


def depth_text(values: np.ndarray) -> str:
    import torch

    from fairhuman.generate.control_inputs import depth_text as text

    return text(torch.from_numpy(values / values.max()).float()[None])


@pytest.mark.parametrize("kind", ["relative", "metric_mm"])
def test_depth_is_compared_with_what_an_estimator_says(tmp_path: Path, kind: str) -> None:
    """A tiny random Depth Anything: what it finds itself agrees fully, the opposite not at all; near is large."""
    from fairhuman.data.condition.depth_model import open_depth
    from fairhuman.data.condition.settings import DepthSettings

    model = save_depth_model(tmp_path / "model")
    save(tmp_path / "own" / "0.png", "p", 0, 0)
    with Image.open(tmp_path / "own" / "0.png") as image, open_depth(DepthSettings(model=model)) as estimator:
        [depth_hw] = estimator([np.asarray(image)])
    depth_hw = depth_hw if kind == "relative" else -depth_hw
    spread = (depth_hw - depth_hw.min()) / np.ptp(depth_hw)
    for name, values in (("own", spread), ("opposite", 1 - spread)):
        save(tmp_path / name / "0.png", "p", 0, 0, asked_depth=depth_text(values))
    options = ("metrics=[depth_agreement]", f"depth.model={model}", f"depth.kind={kind}")
    done = measured(tmp_path, "own", "opposite", options=options)
    values = {one.method: one.measured.value for one in done.found.results}
    assert values["own"] > 0.99
    assert values["opposite"] < -0.99


def test_depth_is_estimated_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, estimate = [], DepthEstimator._estimate
    monkeypatch.setattr(
        DepthEstimator, "_estimate", lambda self, given: sizes.append(len(given)) or estimate(self, given)
    )
    model, values = save_depth_model(tmp_path / "model"), np.arange(48 * 64).reshape(48, 64)
    for number in range(3):
        save(tmp_path / "own" / f"{number}.png", "p", 0, number, asked_depth=depth_text(values))
    measured(tmp_path, "own", options=("metrics=[depth_agreement]", f"depth.model={model}", "depth.batch_size=2"))
    assert sizes == [2, 1]


def test_cached_depth_belongs_to_the_files_of_a_folder_and_not_to_its_name(tmp_path: Path) -> None:
    from fairhuman.data.condition.depth_model import open_depth
    from fairhuman.data.condition.settings import DepthSettings

    def mark(model: str) -> str:
        with open_depth(DepthSettings(model=model)) as estimator:
            return _fingerprint(estimator)

    model = save_depth_model(tmp_path / "model")
    first = mark(model)
    assert mark(save_depth_model(tmp_path / "moved")) == first
    save_depth_model(tmp_path / "model", max_depth=9)
    assert mark(model) != first


@pytest.mark.slow
def test_a_photo_agrees_with_its_own_pose_and_not_with_anothers(shared: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data" / "ccp" / "metadata.jsonl").read_text().splitlines()[:6]]
    poses = [row["pose"] for row in rows]
    for name, shift in (("own", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        lines = []
        for number, row in enumerate(rows):
            image = Image.open(shared / "data" / "ccp" / row["file_name"])
            image.save(tmp_path / name / f"{number}.png")
            pose = poses[(number + shift) % len(poses)]
            lines.append(json.dumps({"file_name": f"{number}.png", "caption": f"p{number}", "pose": pose}))
        (tmp_path / name / "metadata.jsonl").write_text("\n".join(lines))
    done = measured(tmp_path, "own", "other", options=("metrics=[pose_agreement]",))
    values = {one.method: one.measured.value for one in done.found.results}
    assert values["own"] > 0.8
    assert values["own"] > values["other"] + 0.1


def test_hidden_points_are_asked_for_too() -> None:
    points = coco_points()
    points[9, 2] = 0.5
    assert isinstance(person_from_coco(points), PersonPose)
    far = points.copy()
    far[9, 0] += 60
    value = keypoint_similarity(person_from_coco(points), person_from_coco(far).body, (100, 80))
    assert value == pytest.approx(16 / 17, abs=0.02)
