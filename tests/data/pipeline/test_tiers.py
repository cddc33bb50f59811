"""The tiers over a whole build: detectors that crash, endpoints that fail, conditions; what they cost again."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.caption.settings import CaptionSettings
from fairhuman.data.condition.settings import ConditionSettings, DepthSettings
from fairhuman.data.pipeline import detect as detect_tier
from fairhuman.data.pipeline import rows as build_rows
from fairhuman.data.pipeline import run
from fairhuman.data.pipeline.caption import CaptionTier
from fairhuman.data.pipeline.condition import ConditionTier
from fairhuman.data.pipeline.regions import RegionTier
from fairhuman.detect.settings import DetectSettings
from fairhuman.errors import DataError
from helpers import caption_server
from helpers.crashing_detectors import open_crashing
from helpers.small_builds import build, rejected, rows
from helpers.tiny_pictures import encoded, picture
from helpers.unguarded import Unguarded

TEXT = ("caption.kind=text", "detect=null")
FAKE = ("caption.kind=text", "detect={person: null}", "needs=[]", "max_failed_share=1")


@pytest.fixture
def photos(tmp_path):
    """Pictures 40 .. 47 pixels wide with captions; the first two with boxes."""
    root = tmp_path / "photos"
    root.mkdir()
    lines = []
    for i in range(8):
        (root / f"{i}.png").write_bytes(encoded(picture(40 + i, 64, i)))
        faces = [[[5, 5, 15, 15]], [], None][min(i, 2)]
        lines.append(json.dumps({"file_name": f"{i}.png", "caption": f"person {i}", "faces": faces, "hands": faces}))
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


@pytest.fixture
def crashing(monkeypatch):
    monkeypatch.setattr(detect_tier, "open_detectors", open_crashing)
    monkeypatch.setattr(detect_tier, "SECONDS", 2.0)


def test_a_crash_timeout_or_error_of_a_detector_fails_only_that_record(photos, tmp_path, crashing):
    report = build(photos, tmp_path / "out", *FAKE).report
    assert report["rejected"] == {"detect": {"detector failed": 2}}
    assert [(row["key"], row["value"]) for row in rejected(tmp_path / "out")] == [
        ("3.png", "the process took too long and was ended"),
        ("5.png", "ValueError: no such layer"),
    ]
    found = {row["key"]: row for row in rows(tmp_path / "out")}
    assert found["0.png"]["faces"] == [[5, 5, 15, 15]], "what is annotated stays"
    assert (found["1.png"]["faces"], found["1.png"]["face_by"]) == ([], "source"), "and so does that there is none"
    detected = found["4.png"]
    assert (detected["faces"], detected["face_scores"], detected["face_votes"]) == ([[2, 3, 12, 13]], [0.75], [3])
    assert detected["face_by"].startswith("mediapipe-0.10.21")
    assert (detected["hands"], detected["hand_by"]) == (None, "mediapipe-0.10.21-litert hands vote"), (
        "not found is unknown"
    )


def test_pictures_without_people_are_unrelated_where_detectors_run(photos, tmp_path, crashing, monkeypatch):
    monkeypatch.setattr(detect_tier, "Guarded", Unguarded)
    lines = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    (photos / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines if line["file_name"] < "3"))
    options = ("caption.kind=text", "detect={person: null}")
    report = build(photos, tmp_path / "out", *options).report
    assert report["rejected"] == {"filter": {"relevance: no person, face or hand": 1}}
    assert [row["key"] for row in rejected(tmp_path / "out")] == ["1.png"]  # annotated: no face and no hand
    assert report["kept"] == 2
    assert build(photos, tmp_path / "out", *options, "needs=[]").report["kept"] == 3
    # of a picture without a face, a detector of faces alone can't say whether it has people
    alone = ("caption.kind=text", "detect={person: null, hand: null}")
    lines[1] |= {"hands": None}
    (photos / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines[:3]))
    assert build(photos, tmp_path / "out", *alone).report["rejected"] == {"filter": {"relevance unjudged": 1}}
    assert build(photos, tmp_path / "out", *alone, "unknown=keep").report["kept"] == 3


def test_boxes_are_detected_beside_a_painted_mask_if_asked_for(photos, tmp_path, crashing, monkeypatch):
    monkeypatch.setattr(detect_tier, "Guarded", Unguarded)
    Image.new("L", (40, 64), 255).save(photos / "mask.png")
    row = {"file_name": "0.png", "caption": "person", "faces": None, "hands": [], "masks": {"face": "mask.png"}}
    (photos / "metadata.jsonl").write_text(json.dumps(row))
    build(photos, tmp_path / "out", *FAKE)
    (plain,) = rows(tmp_path / "out")
    assert (plain["faces"], plain["masks"]["face"] is not None) == (None, True)
    build(photos, tmp_path / "out", *FAKE, "detect_masked=true")
    (both,) = rows(tmp_path / "out")
    assert (both["faces"], both["masks"]["face"] is not None) == ([[2, 3, 12, 13]], True)


def test_fully_annotated_records_skip_the_detector(photos, tmp_path, crashing):
    """Picture 1 would kill it."""
    (photos / "metadata.jsonl").write_text((photos / "metadata.jsonl").read_text().splitlines()[1])
    assert build(photos, tmp_path / "out", *FAKE).report["kept"] == 1


def test_failed_detections_are_tried_again_when_asked_for(photos, tmp_path, crashing, monkeypatch):
    build(photos, tmp_path / "out", *FAKE)
    assert build(photos, tmp_path / "out", *FAKE).report["kept"] == 6
    monkeypatch.setattr(detect_tier, "SECONDS", 3.0)
    for width in (43, 45):
        number = width - 40
        (photos / f"{number}.png").write_bytes(encoded(picture(60 + number, 64, number)))
    assert build(photos, tmp_path / "out", *FAKE, retry_failed=True).report["kept"] == 8


def test_too_many_failures_end_the_build_with_reasons(tmp_path, crashing, monkeypatch):
    monkeypatch.setattr("fairhuman.data.pipeline.run.FIRST_FAILURES", 2)
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(5):
        (root / f"{i}.png").write_bytes(encoded(picture(45, 64, i)))
        (root / f"{i}.txt").write_text("x")
    with pytest.raises(
        DataError, match=r"detect failed on \d of \d rows.*max_failed_share = 20 %.*\n  0.png: detector failed"
    ):
        build(root, tmp_path / "out", "caption.kind=text", "detect={person: null}")


def test_a_detector_that_can_not_start_is_named(photos, tmp_path):
    options = (
        "caption.kind=text",
        "detect={face: onnx, hand: null, person: null, onnx: {models: {face: missing.onnx}}}",
    )
    with pytest.raises(Exception, match=r"missing.onnx"):
        build(photos, tmp_path / "out", *options)


def test_another_model_at_the_same_path_detects_anew(tmp_path):
    """Tables of the bundled models keep the settings that they always had."""

    def decisive(**settings):
        return detect_tier.DetectTier(None, DetectSettings(**settings)).decisive

    assert decisive() == DetectSettings().decisive()
    found = []
    for content in (b"one", b"other"):
        (tmp_path / "a.onnx").write_bytes(content)
        for kind in ("onnx", "whole-body"):
            model = str(tmp_path / "a.onnx")
            models = {"onnx": {"models": {"face": model}}, "whole_body": {"detector": model, "pose": model}}
            found.append(decisive(face=kind, **models))
    assert [set(each["detectors"]) for each in found] == [{"face"}] * 4
    assert len({json.dumps(each) for each in found}) == 4
    kept = [{name: value for name, value in each.items() if name != "detectors"} for each in found]
    assert kept[:2] == kept[2:]


def endpoint_options(address):
    section = {"model": "m", "base_url": address, "first_wait": 0.0, "retries": 1, "timeout": 5.0, "concurrency": 2}
    return ("detect=null", f"caption={json.dumps({'kind': 'endpoint', 'endpoint': section})}", "max_failed_share=1")


def test_tiers_say_on_which_gpu_they_compute():
    def gpus(device):
        caption = CaptionSettings(kind="transformers", transformers={"model": "a/b", "device": device})
        condition = ConditionSettings(depth=DepthSettings(device=device or "auto"))
        words = DetectSettings(regions={"shoes": "the shoes"}, words={"device": device})
        return {
            tier.gpu
            for tier in (CaptionTier(None, caption, False), ConditionTier(None, condition), RegionTier(None, words))
        }

    assert [gpus(device) for device in (None, "cuda:1", "cpu")] == [{"cuda"}, {"cuda:1"}, {None}]
    assert CaptionTier(None, CaptionSettings(), False).gpu is None
    assert ConditionTier(None, ConditionSettings()).gpu is None
    assert RegionTier(None, DetectSettings(regions="head")).gpu is None


def test_the_gpu_of_a_tier_is_that_of_its_processes(photos, tmp_path, monkeypatch):
    asked, run_tasks = [], run.run_tasks

    def watched(start, tasks, workers, ray, gpu=None):
        asked.append(gpu)
        return run_tasks(start, tasks, workers, ray, gpu)

    monkeypatch.setattr(run, "run_tasks", watched)
    monkeypatch.setattr(CaptionTier, "gpu", "cuda:3")
    build(photos, tmp_path / "out")
    assert asked == [None, "cuda:3", None]  # check, caption, writing


def test_captions_of_an_endpoint_are_requested_once(photos, tmp_path):
    with caption_server.endpoint(lambda n: caption_server.said(f"A person, number {n}.")) as (address, asked):
        build(photos, tmp_path / "out", *endpoint_options(address))
        assert len(asked) == len({request.key for request in asked}) == 8
        captions = {row["caption"] for row in rows(tmp_path / "out")}
        assert captions == {f"A person, number {n}." for n in range(8)}
        assert {row["caption_by"] for row in rows(tmp_path / "out")} == {"endpoint:m"}
        patient = endpoint_options(address)[1].replace('"timeout": 5.0', '"timeout": 9.0')
        build(photos, tmp_path / "out", "detect=null", patient, "max_failed_share=1")
        build(photos, tmp_path / "out", *endpoint_options(address), "min_aspect=0.68")
        build(photos, tmp_path / "out", *endpoint_options(address))
        assert len(asked) == 8, "neither patience nor another threshold costs captions"


def test_records_without_a_caption_are_left_out_and_retried(photos, tmp_path):
    broken, requests = [True], []

    def answer(n):
        odd = ord(requests[0][n].key[-1]) % 2  # the same for every request of a record
        return caption_server.error(500) if broken[0] and odd else caption_server.said()

    with caption_server.endpoint(answer) as (address, asked):
        requests.append(asked)
        options = endpoint_options(address)
        first = build(photos, tmp_path / "out", *options).report
        assert 0 < first["kept"] < 8
        assert first["rejected"] == {"caption": {"no caption": 8 - first["kept"]}}
        broken[0] = False
        before = len(asked)
        assert build(photos, tmp_path / "out", *options, retry_failed=True).report["kept"] == 8
        assert len(asked) - before == 8 - first["kept"]


def test_a_picture_that_changes_before_it_is_captioned_is_processed_again(photos, tmp_path, monkeypatch):
    read, late = build_rows.read_checked_bytes, []

    def restless(record, sha256):
        if record.key == "3.png" and not late:
            record.image.write_bytes(encoded(picture(43, 64, 99)))
            late.append(hashlib.sha256(record.image.read_bytes()).digest())
        return read(record, sha256)

    monkeypatch.setattr(build_rows, "read_checked_bytes", restless)
    with caption_server.endpoint(lambda n: caption_server.said(f"A person, number {n}.")) as (address, asked):
        report = build(photos, tmp_path / "out", *endpoint_options(address)).report
    assert (report["kept"], report["rejected"], len(asked)) == (8, {}, 8)
    stored = {row["key"]: row["image"]["bytes"] for row in rows(tmp_path / "out")}
    assert hashlib.sha256(stored["3.png"]).digest() == late[0]


def test_conditions_of_the_source_come_through(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.png").write_bytes(encoded(picture(64, 48)))
    depth = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20)
    depth.save(root / "a.depth.png")
    body = [[10.0 + 2 * i, 5.0 + 2 * i, 1.0] for i in range(18)]
    row = {"file_name": "a.png", "caption": "x", "pose": body, "depth": "a.depth.png"}
    (root / "metadata.jsonl").write_text(json.dumps(row))
    build(root, tmp_path / "out", *TEXT, "condition={pose: none}")
    (built,) = rows(tmp_path / "out")
    assert (built["pose_by"], built["depth_by"], built["depth_kind"]) == ("source", "source", "relative")
    np.testing.assert_array_equal(built["pose"][0]["body"], body)
    drawn = Image.open(io.BytesIO(built["pose_picture"]["bytes"]))
    assert (drawn.size, drawn.getbbox() is not None) == ((64, 48), True)
    stored = np.asarray(Image.open(io.BytesIO(built["depth"]["bytes"])))
    np.testing.assert_array_equal(stored, np.asarray(depth))


def test_conditions_that_the_source_lacks_stay_unknown(photos, tmp_path):
    build(photos, tmp_path / "out", *TEXT, "condition={pose: none}")
    assert {(row["pose"], row["depth"], row["pose_by"]) for row in rows(tmp_path / "out")} == {(None, None, None)}


@pytest.mark.slow
def test_real_photos_get_boxes_poses_and_captions(shared: Path, tmp_path):
    """Twenty photos, nothing annotated, all that needs no download."""
    root = tmp_path / "photos"
    root.mkdir()
    for path in sorted((shared / "data/ccp/images").iterdir())[:20]:
        (root / path.name).write_bytes(path.read_bytes())
    built = build(root, tmp_path / "out", "min_side=300", "caption.kind=template", "detect={}", "condition={}")
    found = rows(tmp_path / "out")
    assert built.report["kept"] == len(found) == 20
    assert sum(row["faces"] is not None for row in found) >= 18
    assert sum(row["pose"] is not None for row in found) >= 18
    assert sum(bool(row["hands"]) for row in found) >= 8
    captions = {row["key"]: row["caption"] for row in found}
    assert captions.pop("0009.jpg") == "A picture of two people."  # a passer-by's face is found
    assert set(captions.values()) == {"A picture of a person."}  # in 0008.jpg a face is found twice
