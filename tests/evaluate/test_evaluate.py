"""A whole evaluation: numbers, differences, page; what is refused; what is said of what is missing."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import get_args

import pyarrow.parquet
import pytest
import torch
from accelerate import PartialState
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

from fairhuman import config
from fairhuman.errors import DataError, ModelError
from fairhuman.evaluate import run as evaluation
from fairhuman.evaluate.networks.efficientnet import TITLE
from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.evaluate.people.detections import ImageDetections, PartDetection
from fairhuman.evaluate.people.official import OfficialScores
from fairhuman.evaluate.run import EvaluationInputs, evaluate
from fairhuman.evaluate.settings import EvaluateSettings, Group
from fairhuman.evaluate.verdict import verdicts
from fairhuman.generate.unread import READ
from fairhuman.record import Box
from helpers.official import need_mediapipe
from helpers.tiny_pictures import noise


@pytest.fixture
def folders(tmp_path):
    """Six pictures of a method, the same ones blurred, and a reference of eight."""
    for name, count, first in (("sharp", 6, 0), ("blurred", 6, 0), ("reference", 8, 100)):
        (tmp_path / name).mkdir()
        for number in range(count):
            image = noise(64, 48, 40 + 10 * number, first + number).convert("RGB")
            if name == "blurred":
                image = image.filter(ImageFilter.GaussianBlur(3))
            info = PngInfo()
            if name != "reference":
                info.add_itxt("prompt", f"prompt {number // 2}")
                info.add_itxt("prompt_index", str(number // 2))
            image.save(tmp_path / name / f"{number}.png", pnginfo=info)
    (tmp_path / "prompts.txt").write_text("prompt 0\nprompt 1\n\nprompt 2\n")
    return tmp_path


def job(folder, *methods, **values):
    common = {"prompts": folder / "prompts.txt", "reference": folder / "reference", "against": None}
    return EvaluationInputs({name: folder / name for name in methods}, **{**common, **values}, cache=folder / "cache")


def settings(*overrides):
    return config.build(EvaluateSettings, {}, overrides)


def fake_detectors(monkeypatch):
    """Strict ones find nothing, official ones a face in each picture; how many pictures they were given, by call."""
    strict, official = [], []

    def find(pictures, **_):
        strict.append(len(pictures))
        return reversed([(index, ImageDetections()) for index in range(len(pictures))])

    def score(pictures, **_):
        official.append(len(pictures))
        return [OfficialScores((0.9 + 0.02 * number,), ()) for number in range(len(pictures))]

    monkeypatch.setattr("fairhuman.evaluate.metrics.confidences.detect_each", find)
    monkeypatch.setattr("fairhuman.evaluate.metrics.confidences.official_scores", score)
    monkeypatch.setattr("fairhuman.evaluate.people.official.version", lambda _: "0.10.21")
    return strict, official


def test_numbers_of_two_methods(folders, monkeypatch):
    done = evaluate(job(folders, "sharp", "blurred"), settings("metrics=[efficientnet]"), folders / "out")
    found = json.loads((folders / "out" / "metrics.json").read_text())
    values = {(one["name"], one["method"]): one for one in found["metrics"]}
    name = "Fréchet distance on EfficientNet-Lite0 features"
    assert values[name, "blurred"]["value"] > values[name, "sharp"]["value"] > 0
    assert values[name, "sharp"]["n"] == 6
    assert values[name, "sharp"]["prompts"] == 3
    (difference,) = found["differences"]
    assert difference["against"] == "sharp"
    assert difference["value"] == pytest.approx(values[name, "blurred"]["value"] - values[name, "sharp"]["value"])
    assert (difference["p"], difference["p_holm"]) == (None, None), "3 prompts are too few for a test"
    assert any("can't fill the covariance" in text for text in found["warnings"])
    assert name in done.page.read_text()
    monkeypatch.setattr("fairhuman.evaluate.networks.efficientnet.EfficientNetLite0.extract", None)
    evaluate(job(folders, "sharp", "blurred"), settings("metrics=[efficientnet]"), folders / "again")
    assert json.loads((folders / "again" / "metrics.json").read_text())["metrics"] == found["metrics"]


def test_too_little_memory_is_one_line_and_names_what_helps(folders, monkeypatch):
    def extract(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 is full. Try setting X.")

    monkeypatch.setattr("fairhuman.evaluate.networks.efficientnet.EfficientNetLite0.extract", extract)
    with pytest.raises(ModelError, match=r"Tried to allocate 2.00 GiB.*batch_size below 16; the same again goes on"):
        evaluate(job(folders, "sharp"), settings("metrics=[efficientnet]"), folders / "out")
    assert not (folders / "out" / "metrics.json").exists()


def test_crops_of_faces_have_a_distance_of_their_own_that_no_verdict_rests_on(folders, monkeypatch):
    face = PartDetection(Box(5, 5, 55, 45), "face", (), 0, (), ())
    faces = [ImageDetections(faces=(face,)), ImageDetections(faces=(face, replace(face, box=Box(0, 0, 20, 20))))]

    def find(pictures, **_):
        return [(index, faces[index % 2]) for index in range(len(pictures))]

    monkeypatch.setattr("fairhuman.evaluate.metrics.confidences.detect_each", find)
    for least, counts in ((32, {"sharp": 6, "blurred": 6}), (16, {"sharp": 9, "blurred": 9})):
        options = settings("metrics=[efficientnet]", f"crop_min_side={least}")
        found = evaluate(job(folders, "sharp", "blurred"), options, folders / f"out-{least}").found
        values = {one.method: one.measured for one in found.results if one.metric.name == f"face {TITLE}"}
        assert {method: measured.n for method, measured in values.items()} == counts
        assert values["blurred"].value > values["sharp"].value
        assert any(f"no hand {TITLE}: a distance needs at least 2 hand crops" in text for text in found.warnings)
        assert f"face crops of sharp: {counts['sharp']} from 6" in " ".join(found.warnings)
        (verdict,) = verdicts(found)
        assert "face" not in verdict.text


def test_crops_are_compared_on_pictures_in_which_both_methods_have_one(folders, monkeypatch):
    """Fewer crops are farther from the reference, for that alone."""
    face = PartDetection(Box(5, 5, 55, 45), "face", (), 0, (), ())

    def find(pictures, **_):
        missed = (6, 7, 8) if len(pictures) == 12 else ()  # of both methods; the first three blurred ones
        return [(index, ImageDetections(faces=() if index in missed else (face,))) for index in range(len(pictures))]

    def crops(out, *, cut):
        if cut:
            for name in ("sharp", "blurred"):
                for number in range(3):
                    (folders / name / f"{number}.png").unlink()
        found = evaluate(job(folders, "sharp", "blurred"), settings("metrics=[efficientnet]"), folders / out).found
        (contrast,) = (one for one in found.contrasts if one.metric.name == f"face {TITLE}")
        counts = [one.measured.n for one in found.results if one.metric == contrast.metric]
        return counts, contrast.difference.measured.value

    monkeypatch.setattr("fairhuman.evaluate.metrics.confidences.detect_each", find)
    counts, difference = crops("out", cut=False)
    assert counts == [6, 3]
    assert crops("half", cut=True) == ([3, 3], pytest.approx(difference))


def test_distances_are_compared_on_the_pictures_that_both_methods_have(folders):
    """Half of the pictures are farther from the reference than all of them, for that alone."""
    (folders / "half").mkdir()
    for number in (0, 2, 4):  # the first picture of each prompt
        shutil.copy(folders / "sharp" / f"{number}.png", folders / "half")
    done = evaluate(job(folders, "sharp", "half"), settings("metrics=[efficientnet]"), folders / "out")
    sharp, half = (one.measured for one in done.found.results)
    assert half.value > 1.1 * sharp.value
    (contrast,) = done.found.contrasts
    assert (contrast.method, contrast.difference.measured.value, contrast.difference.equal) == ("half", 0.0, True)


def test_subfolders_of_a_method_can_be_measured_alone(folders, monkeypatch):
    _, official = fake_detectors(monkeypatch)
    for seed, name in ((1, "sharp"), (12, "blurred")):
        shutil.copytree(folders / name, folders / "both" / f"seed-{seed}")
    for parts, keys in (({"both": ["seed-1"]}, {"seed-1"}), ({}, {"seed-1", "seed-12"})):
        evaluate(job(folders, "both", reference=None, parts=parts), settings("metrics=[official]"), folders / "out")
        found = pyarrow.parquet.read_table(folders / "out" / "per_image.parquet").column("key").to_pylist()
        assert {key.split("/")[0] for key in found} == keys
    assert official == [6, 12]


def test_confidences_of_pictures_without_people(folders):
    """Nothing is found, and that is a number where something is expected."""
    options = settings("metrics=[strict]", "expected.face=1", "upscale=1")
    evaluate(job(folders, "sharp", reference=None), options, folders / "out")
    found = {one["name"]: one for one in json.loads((folders / "out" / "metrics.json").read_text())["metrics"]}
    assert (found["strict face confidence"]["value"], found["strict face confidence"]["n"]) == (0.0, 6)
    assert found["best hand"]["value"] == 0.0
    assert "strict hand confidence" not in found, "nobody says how many hands there should be"
    table = pyarrow.parquet.read_table(folders / "out" / "per_image.parquet")
    assert table.column("strict face confidence").to_pylist() == [0.0] * 6
    assert table.column("prompt").to_pylist()[::2] == ["prompt 0", "prompt 1", "prompt 2"]


def test_official_confidences_of_pictures_without_people_are_means_over_nothing(folders):
    need_mediapipe()
    evaluate(job(folders, "sharp", reference=None), settings("metrics=[official]", "upscale=1"), folders / "out")
    found = {one["name"]: one for one in json.loads((folders / "out" / "metrics.json").read_text())["metrics"]}
    assert found["official hand confidence"]["value"] is None


def test_detectors_look_once_at_each_content(folders, monkeypatch):
    strict, official = fake_detectors(monkeypatch)
    monkeypatch.setattr("fairhuman.evaluate.tools.WRITE_EVERY", 4)
    options = settings("metrics=[strict, official]")
    first = evaluate(job(folders, "sharp", "blurred"), options, folders / "out")
    assert (sum(strict), official) == (12, [6, 6])
    for number in range(6):
        (folders / "sharp" / f"{number}.png").rename(folders / "sharp" / f"x{number}.png")
    again = evaluate(job(folders, "sharp", "blurred"), options, folders / "out")
    assert (sum(strict), official) == (12, [6, 6])
    results = [
        [one.measured for one in done.found.results if one.metric.name == "official face confidence"]
        for done in (first, again)
    ]
    assert results[0] == results[1]
    assert [one.value for one in results[0]] == pytest.approx([0.95, 0.95])


def test_official_confidences_go_with_the_order_and_the_detectors(folders, monkeypatch):
    """The same pictures in another order are another film, and so are fewer of them."""
    _, official = fake_detectors(monkeypatch)
    options = settings("metrics=[official]")
    evaluate(job(folders, "sharp", prompts=None), options, folders / "out")
    (folders / "sharp" / "0.png").rename(folders / "sharp" / "6.png")
    evaluate(job(folders, "sharp", prompts=None), options, folders / "out")
    assert official == [6, 6]
    (folders / "sharp" / "6.png").unlink()
    evaluate(job(folders, "sharp", prompts=None), options, folders / "out")
    assert official == [6, 6, 5]
    evaluate(job(folders, "sharp", prompts=None), settings("metrics=[official]", "upscale=1"), folders / "out")
    monkeypatch.setattr("fairhuman.evaluate.people.official.version", lambda _: "9")
    evaluate(job(folders, "sharp", prompts=None), options, folders / "out")
    assert official == [6, 6, 5, 5, 5]


def test_official_confidences_without_mediapipe_are_refused_in_one_line_before_anything_is_measured(
    folders, monkeypatch
):
    strict, _ = fake_detectors(monkeypatch)

    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("fairhuman.evaluate.people.official.version", version)
    refused = (
        r"^official confidences need mediapipe 0\.10\.21, .*pip install 'fairhuman\[official\]' .*other groups: strict$"
    )
    with pytest.raises(WeightsError, match=refused):
        evaluate(job(folders, "sharp"), settings("metrics=[official, strict]"), folders / "out")
    assert strict == []


def test_missing_weights_are_named_with_what_runs_without(folders):
    options = settings("metrics=[efficientnet, fid]", f"inception.weights={folders / 'none.pth'}")
    with pytest.raises(WeightsError, match=r"none.pth.*leave 'fid' out of metrics; other groups: efficientnet"):
        evaluate(job(folders, "sharp"), options, folders / "out")


def test_weights_are_looked_for_before_anything_is_measured(folders, monkeypatch):
    """All that is missing is said at once; without a reference there is no FID to need any."""
    monkeypatch.setattr(evaluation, "GROUPS", dict.fromkeys(evaluation.GROUPS))  # a call would raise TypeError
    places = [f"{name}={folders / 'none'}" for name in ("hps.weights", "image_reward.weights", "inception.weights")]
    options = settings("metrics=[strict, hps, image_reward, fid]", *places)
    missing = r"hps\.weights.*image_reward\.weights.*FID.*leave 'hps', 'image_reward', 'fid' out.*other groups: strict$"
    with pytest.raises(WeightsError, match=missing):
        evaluate(job(folders, "sharp"), options, folders / "out")
    with pytest.raises(WeightsError, match=r"leave 'hps', 'image_reward' out of metrics; other groups: strict, fid$"):
        evaluate(job(folders, "sharp", reference=None), options, folders / "out")
    options = settings("metrics=[strict, depth_agreement]", f"depth.model={folders / 'none'}")
    with pytest.raises(WeightsError, match=r"^depth\.model .*no such folder.*leave 'depth_agreement' out of metrics"):
        evaluate(job(folders, "sharp"), options, folders / "out")


def test_processes_wait_long_for_the_one_that_works_alone(folders, monkeypatch):
    given = []

    def state(**options):
        given.append(options)
        return PartialState()

    monkeypatch.setattr(evaluation, "PartialState", state)
    evaluate(job(folders, "sharp"), settings("metrics=[efficientnet]"), folders / "out")
    assert given[0]["timeout"] >= timedelta(hours=12)


def test_methods_without_a_prompt_in_common_are_refused(folders):
    (folders / "other").mkdir()
    info = PngInfo()
    info.add_itxt("prompt", "another")
    info.add_itxt("prompt_index", "0")
    Image.new("RGB", (32, 32)).save(folders / "other" / "0.png", pnginfo=info)
    with pytest.raises(DataError, match=r"^other and sharp have no prompt in common"):
        evaluate(job(folders, "sharp", "other", prompts=None), settings("metrics=[efficientnet]"), folders / "out")
    with pytest.raises(DataError, match=r"^--against must be one of sharp, blurred, found 'base'$"):
        job(folders, "sharp", "blurred", against="base")


def test_methods_drawn_with_other_settings_are_told_apart(folders, monkeypatch):
    fake_detectors(monkeypatch)
    for name, steps in (("one", "30"), ("other", "8"), ("same", "30")):
        (folders / name).mkdir()
        info = PngInfo()
        for key, value in (("prompt", "a"), ("prompt_index", "0"), ("seed", "0"), ("steps", steps), (READ, "77")):
            info.add_itxt(key, value)
        Image.new("RGB", (32, 32)).save(folders / name / "0.png", pnginfo=info)
    done = evaluate(job(folders, "one", "other", "same", prompts=None), settings("metrics=[strict]"), folders / "out")
    told = [text for text in done.found.warnings if "differ in" in text]
    assert told == ["Methods differ in steps (one: 30; other: 8)."]
    assert told[0] in done.page.read_text()
    assert sum("1 of 1 prompt is longer than the 77 tokens" in text for text in done.found.warnings) == 1


def test_methods_that_lack_pictures_are_compared_on_those_they_share(folders):
    (folders / "blurred" / "5.png").unlink()
    (folders / "blurred" / "0.png").write_bytes(b"\x89PNG no picture")
    evaluate(job(folders, "sharp", "blurred"), settings("metrics=[efficientnet]"), folders / "out")
    found = json.loads((folders / "out" / "metrics.json").read_text())
    assert "blurred and sharp share 4 of 4 and 6 pictures: differences are computed on these" in found["warnings"]
    assert sum(found["left_out"]["blurred"]["skipped"].values()) == 1
    assert "0.png" in (folders / "out" / "report.html").read_text()


def test_a_single_picture_has_no_distance_and_every_other_number(folders, monkeypatch):
    fake_detectors(monkeypatch)
    for number in range(1, 6):
        (folders / "sharp" / f"{number}.png").unlink()
    done = evaluate(job(folders, "sharp", prompts=None), settings("expected.face=1"), folders / "out")
    names = {one.metric.name for one in done.found.results}
    assert "strict face confidence" in names
    assert "official face confidence" not in names, "a default would need MediaPipe"
    assert not any("distance" in one.metric.name for one in done.found.results)
    (warning,) = [text for text in done.found.warnings if "distance" in text]
    assert warning == f"no {TITLE}: a distance needs at least 2 pictures in each set, sharp has 1"
    assert "sharp has 1" in done.page.read_text()


def test_a_reference_of_a_single_picture_is_named(folders):
    for number in range(1, 8):
        (folders / "reference" / f"{number}.png").unlink()
    options = settings("metrics=[efficientnet]")
    done = evaluate(job(folders, "sharp", "blurred"), options, folders / "out")
    assert not done.found.results
    assert any(text.endswith("at least 2 pictures in each set, the reference has 1") for text in done.found.warnings)


def test_one_picture_and_no_reference(folders):
    for number in range(1, 6):
        (folders / "sharp" / f"{number}.png").unlink()
    done = evaluate(
        job(folders, "sharp", reference=None, prompts=None), settings("metrics=[efficientnet]"), folders / "out"
    )
    assert "it needs a --reference" in done.page.read_text()


@pytest.mark.parametrize(("text", "rule"), [("", "holds no prompt"), (None, "expected a UTF-8 text file")])
def test_prompts_that_can_not_be_read(folders, text, rule):
    path = folders / "bad.txt"
    path.write_text(text) if text is not None else path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=rf"bad.txt: {rule}"):
        evaluate(job(folders, "sharp", prompts=Path(path)), settings(), folders / "out")


def test_every_group_of_the_settings_is_there():
    assert set(evaluation.GROUPS) == set(get_args(Group))


@pytest.mark.slow
def test_two_processes_give_the_same_numbers(folders):
    """Each computes a share of the features; one of them writes."""
    common = ["--prompts", "prompts.txt", "--reference", "reference", "metrics=[efficientnet]", "batch_size=2"]
    for name, launch in {
        "one": [sys.executable, "-m"],
        "two": [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "-m"],
    }.items():
        places = ["--out", name, "--cache", f"cache-{name}"]
        done = subprocess.run(
            [*launch, "fairhuman.cli", "evaluate", "sharp", "--method", "blurred=blurred", *common, *places],
            cwd=folders,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    one, two = (json.loads((folders / name / "metrics.json").read_text())["metrics"] for name in ("one", "two"))
    assert [entry["value"] for entry in two] == pytest.approx([entry["value"] for entry in one], rel=1e-4)
    assert len(list((folders / "cache-two").glob("efficientnet-lite0-*/*.parquet"))) > 1, "both did a share"
