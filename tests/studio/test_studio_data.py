"""The studio's data sets: what is listed, shown and changed, and what is refused."""

import errno
import io
import json
import re
import shutil
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.look.reading import open_dataset
from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.edits import EDITS, EditsWriter, read_edits
from fairhuman.errors import DataError
from fairhuman.report.colours import colours
from fairhuman.studio.cells import runs_of
from fairhuman.studio.pictures import DataView
from fairhuman.studio.settings import StudioSettings
from fairhuman.web.app import RefusedError
from helpers.tiny_pictures import encoded, picture


@pytest.fixture
def photos(tmp_path):
    """Four pictures, one of them broken; faces with scores, hands in every second one; the last is turned by EXIF."""
    root = tmp_path / "photos"
    root.mkdir()
    rows = []
    for i in range(4):
        (root / f"{i}.png").write_bytes(encoded(picture(64, 48, i)))
        hands = [[30, 30, 40, 44]] if i % 2 else None
        row = {"file_name": f"{i}.png", "caption": f"number {i}", "faces": [[4, 5, 20, 25, 0.2 + 0.2 * i]]}
        rows.append({**row, "hands": hands, "source": "ab"[i % 2]})
    (root / "2.png").write_bytes(b"nothing")
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees
    picture(64, 48, 9).save(root / "turned.jpg", exif=exif, quality=95)
    rows.append({"file_name": "turned.jpg", "caption": "turned", "faces": None, "hands": [], "source": "a"})
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture
def data(opened, photos):
    studio = opened(photos)
    while not studio.get("/api/data", name="photos").json()["done"]:
        time.sleep(0.01)
    return studio


def keys(data, **wanted):
    return [one["key"] for one in data.get("/api/pictures", name="photos", **wanted).json()["pictures"]]


def test_pictures_are_listed_by_what_is_known_of_them(data):
    facts = data.get("/api/data", name="photos").json()
    assert (facts["all"], facts["broken"], facts["sources"]) == (5, 1, ["a", "b"])
    assert keys(data) == ["0.png", "1.png", "3.png", "turned.jpg"]
    assert keys(data, start=1, most=2) == ["1.png", "3.png"]
    assert keys(data, text="NUMBER 3") == ["3.png"]
    assert keys(data, source="b") == ["1.png", "3.png"]
    assert keys(data, region="hand", state="has") == ["1.png", "3.png"]
    assert keys(data, region="hand", state="none") == ["turned.jpg"]
    assert keys(data, region="face", state="unknown") == ["turned.jpg"]
    assert keys(data, region="face", state="unsure", below=45) == ["0.png", "1.png"]
    [broken] = data.get("/api/pictures", name="photos", group="broken").json()["pictures"]
    assert (broken["shown"], "not a picture" in broken["problem"]) == (False, True)


def test_what_a_build_left_out_is_listed_with_its_reason(opened, photos, tmp_path):
    from fairhuman.data.pipeline.run import build_dataset
    from fairhuman.data.pipeline.settings import BuildRecipe

    Image.new("RGB", (20, 20), "red").save(photos / "small.png")
    with (photos / "metadata.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"file_name": "small.png", "caption": "small", "faces": [], "hands": []}))
    recipe = {"min_side": 40, "detect": None, "caption": {"kind": "text"}}
    build_dataset(photos, tmp_path / "built", BuildRecipe.model_validate(recipe))
    studio = opened(tmp_path / "built")
    while not (facts := studio.get("/api/data", name="built").json())["done"]:
        time.sleep(0.01)
    reasons = facts["rejected"]
    assert sum(reasons.values()) == 2
    reason = next(one for one in reasons if "side" in one or "small" in one)
    [left_out] = studio.get("/api/pictures", name="built", group=reason).json()["pictures"]
    assert left_out["key"] == "small.png"
    assert studio.get("/data/thumb", name="built", group=reason, number=0).headers["content-type"] == "image/jpeg"
    assert (
        studio.post(
            "/api/change", {"name": "built", "number": 99, "key": "x", "version": 0, "caption": "x"}
        ).status_code
        == 404
    )


def test_a_painted_mask_is_read_back_cell_by_cell_in_the_upright_picture(data, photos):
    before = data.get("/api/picture", name="photos", number=4).json()
    assert (before["width"], before["height"], before["version"]) == (48, 64, 0)  # turned by its EXIF orientation
    mask_hw = np.zeros((64, 48), dtype=bool)
    mask_hw[50:60, 3:9] = mask_hw[2, 40] = True
    change = {
        "name": "photos",
        "number": 4,
        "key": "turned.jpg",
        "version": 0,
        "region": "hand",
        "runs": runs_of(mask_hw),
    }
    after = data.post("/api/change", change).json()
    assert after["masks"]["hand"] == runs_of(mask_hw)
    assert after["boxes"]["hand"] == [[3, 50, 9, 60], [40, 2, 41, 3]]
    found = {one.key: one for one in read_source(photos, ("face", "hand"), SourceSettings(), LoadReport())}
    assert np.array_equal(np.asarray(decode_mask(found["turned.jpg"].masks["hand"])) > 127, mask_hw)
    shown = data.get("/data/picture", name="photos", number=4)
    assert shown.headers["content-type"] == "image/jpeg"
    assert keys(data, edited=1) == ["turned.jpg"]
    listed = data.get("/api/pictures", name="photos").json()["pictures"]
    assert [one["changed"] for one in listed] == [False, False, False, True]


def test_regions_are_drawn_on_small_pictures_when_asked_for(data, photos):
    inside_hw = np.zeros((48, 64), dtype=bool)
    inside_hw[30:44, 50:60] = True
    change = {"name": "photos", "number": 1, "key": "1.png", "version": 0, "region": "bag", "runs": runs_of(inside_hw)}
    assert data.post("/api/change", change).status_code == 200

    def small(**values):
        content = data.get("/data/thumb", name="photos", number=1, **values).content
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), dtype=int)

    changed_hw = np.abs(small(regions=1) - small()).max(axis=2) > 40
    assert changed_hw[10, 4], "the left edge of the face's box"
    assert changed_hw[34:40, 53:57].all(), "the painted bag"
    assert not changed_hw[:, 22:28].any()
    listed = data.get("/api/pictures", name="photos").json()["pictures"]
    assert [one["version"] for one in listed] == [0, 1, 0, 0]  # so that a browser asks again after a change


def test_what_a_build_looked_for_in_vain_is_told_until_it_is_changed(opened, tmp_path):
    root = tmp_path / "built"
    root.mkdir()
    (root / "a.png").write_bytes(encoded(picture(64, 48, 1)))
    row = {"file_name": "a.png", "hands": None, "hand_by": "finder", "faces": [[4, 5, 20, 25]], "face_by": "finder"}
    (root / "metadata.jsonl").write_text(json.dumps({**row, "caption": "a"}))
    view = DataView(root, StudioSettings())
    view.wait()
    assert view.picture(0)["searched"] == {"hand": "finder"}
    assert view.change(0, "a.png", 0, {"region": "hand", "boxes": None})["searched"] == {}
    view.close()


def test_another_window_s_change_is_not_overwritten_and_each_can_be_undone(data, photos):
    first = data.post(
        "/api/change", {"name": "photos", "number": 0, "key": "0.png", "version": 0, "caption": "one"}
    ).json()
    late = data.post("/api/change", {"name": "photos", "number": 0, "key": "0.png", "version": 0, "caption": "two"})
    assert (late.status_code, "another window" in late.json()["message"]) == (409, True)
    moved = {"name": "photos", "number": 0, "key": "1.png", "version": first["version"], "caption": "x"}
    assert data.post("/api/change", moved).status_code == 409  # a row was put before it on disk
    none = {"name": "photos", "number": 0, "key": "0.png", "version": first["version"], "region": "face", "boxes": []}
    second = data.post("/api/change", none).json()
    assert (second["boxes"]["face"], second["undo"], second["redo"]) == ([], second["version"], None)
    assert keys(data, region="face", state="none") == ["0.png"]
    undo = {"name": "photos", "number": 0, "key": "0.png", "version": second["version"]}
    third = data.post("/api/undo", undo).json()
    assert (third["undo"], third["redo"]) == (first["version"], third["version"])  # what each would take back
    assert third["boxes"]["face"] == [[4.0, 5.0, 20.0, 25.0]]
    again = data.post("/api/undo", {**undo, "version": third["version"], "again": True}).json()
    assert (again["boxes"]["face"], again["caption"]) == ([], "one")
    assert data.post("/api/undo", {**undo, "version": again["version"], "again": True}).status_code == 409
    assert len((photos / EDITS).read_text().splitlines()) == 4


@pytest.mark.parametrize(
    "values",
    [
        {"region": "global", "boxes": []},
        {"region": "no name", "boxes": []},
        {"region": "", "runs": [3072]},
        {"region": "face", "boxes": [[0, 0, 100, 10]]},
        {"region": "face", "boxes": [[9, 9, 3, 3]]},
        {"region": "face", "boxes": [[1, 2, 3]]},
        {"region": "face", "runs": [1, 2, 3]},
        {"region": "face", "runs": [-1, 3073]},
        {"caption": "x" * 10_001},
    ],
)
def test_a_wrong_change_is_refused_and_nothing_is_written(data, photos, values):
    answer = data.post("/api/change", {"name": "photos", "number": 0, "key": "0.png", "version": 0, **values})
    assert (answer.status_code, (photos / EDITS).exists()) == (422, False)


def test_where_nothing_may_be_changed_the_reason_is_told(data, opened, photos):
    change = {"name": "photos", "number": 0, "key": "0.png", "version": 0, "caption": "x"}
    assert opened(photos, read_only=True).post("/api/change", change).status_code == 403
    with EditsWriter(photos) as other:
        held = data.post("/api/change", change)
        assert (held.status_code, "another studio" in held.json()["message"]) == (403, True)
        other.add("0.png", {"caption": "theirs"})
    stale = data.post("/api/change", change)
    assert stale.status_code == 409  # what the other one wrote is read before anything is written
    fresh = data.get("/api/picture", name="photos", number=0).json()
    assert (fresh["caption"], fresh["version"]) == ("theirs", 1)


@pytest.mark.parametrize("boxes", [[[3, 4, 20, 30]], []])
def test_boxes_of_a_new_region_are_shown_and_read_again(data, opened, photos, boxes):
    change = {"name": "photos", "number": 0, "key": "0.png", "version": 0, "region": "bag", "boxes": boxes}
    shown = data.post("/api/change", change).json()
    assert shown["boxes"]["bag"] == boxes
    del change["region"], change["boxes"]
    undone = data.post("/api/undo", {**change, "version": shown["version"]}).json()
    assert not undone["boxes"]["bag"]
    again = data.post("/api/undo", {**change, "version": undone["version"], "again": True}).json()
    assert again["boxes"]["bag"] == boxes
    assert keys(data, region="bag", state="has" if boxes else "none") == ["0.png"]
    assert "bag" in open_dataset(photos).regions
    later = DataView(photos, StudioSettings())
    later.wait()
    assert later.picture(0)["boxes"]["bag"] == boxes


def test_while_a_data_set_is_read_a_change_is_told_to_come_again(data, photos, monkeypatch):
    go_on = threading.Event()
    read = DataView._read
    monkeypatch.setattr(DataView, "_read", lambda *args: go_on.wait(30) and read(*args))
    view = DataView(photos, StudioSettings())
    try:
        for early in (lambda: view.change(0, "0.png", 0, {"caption": "x"}), lambda: view.picture(0)):
            with pytest.raises(RefusedError, match="still being read") as caught:
                early()
            assert (caught.value.status, caught.value.headers["Retry-After"]) == (503, "1")
        go_on.set()
        view.wait()
        assert view.change(0, "0.png", 0, {"caption": "x"})["caption"] == "x"
        with pytest.raises(RefusedError, match="no such picture"):
            view.picture(99)
    finally:
        go_on.set()
        view.close()
    assert read_edits(photos).lines[0].values["caption"] == "x"


def test_a_reading_that_a_reload_replaced_says_nothing_of_the_new_one(photos, monkeypatch):
    waits = [threading.Event(), threading.Event()]
    read, threads = DataView._read, []

    def slow(*args):
        threads.append(threading.current_thread())
        waits[len(threads) - 1].wait(30)
        yield from read(*args)

    monkeypatch.setattr(DataView, "_read", slow)
    view = DataView(photos, StudioSettings())
    try:
        while not threads:
            time.sleep(0.01)
        view.reload()
        waits[0].set()
        threads[0].join(30)
        assert (view.done, view.entries) == (False, [])
        waits[1].set()
        view.wait()
        assert (view.done, len(view.entries)) == (True, 5)
    finally:
        for event in waits:
            event.set()
        view.close()


def test_a_data_set_that_cannot_be_read_says_why_it_is_not_changed(tmp_path):
    view = DataView(tmp_path / "missing", StudioSettings())
    view.wait()
    with pytest.raises(RefusedError, match=r"Nothing can be changed: .*there is no such file or folder") as caught:
        view.change(0, "0.png", 0, {"caption": "x"})
    assert caught.value.status == 403


@pytest.mark.parametrize("part", ["open_dataset", "rejected_groups"])
def test_a_disk_that_fails_while_it_is_read_is_told(photos, monkeypatch, part):
    def fails(*_):
        raise OSError(errno.EIO, "Input/output error", "/photos/metadata.jsonl")

    monkeypatch.setattr(f"fairhuman.studio.pictures.{part}", fails)
    view = DataView(photos, StudioSettings())
    view.wait()
    assert (view.done, view.problem) == (True, "/photos/metadata.jsonl: can't be read: Input/output error")


@pytest.mark.parametrize(
    "name", ["global", "prior", "hands", "masks", "Face", "my logo", "face_by", "hand_mask", "é", ""]
)
def test_a_name_that_no_region_can_have_is_refused_before_anything_is_drawn(data, photos, name):
    told = data.get("/api/region", name="photos", region=name)
    change = {"name": "photos", "number": 0, "key": "0.png", "version": 0, "region": name, "boxes": []}
    assert (told.status_code, data.post("/api/change", change).json()) == (422, told.json())
    allowed = data.get("/api/region", name="photos", region=" left_hand ").json()
    shown = data.get("/api/data", name="photos").json()["colours"]
    assert allowed == {"region": "left_hand", "colours": {**shown, "left_hand": colours(["left_hand"])["left_hand"]}}
    assert not (photos / EDITS).exists()


def test_a_picture_that_cannot_be_decoded_moves_to_those_that_cannot_be_used(opened, photos):
    whole = (photos / "turned.jpg").read_bytes()
    (photos / "turned.jpg").write_bytes(whole[: len(whole) // 2])
    studio = opened(photos)
    while not studio.get("/api/data", name="photos").json()["done"]:
        time.sleep(0.01)
    assert keys(studio)[-1] == "turned.jpg"  # its header can be read
    assert studio.get("/data/thumb", name="photos", number=4).status_code == 404
    assert keys(studio)[-1] == "3.png"
    assert studio.get("/api/data", name="photos").json()["broken"] == 2
    assert "truncated" in studio.get("/api/pictures", name="photos", group="broken").json()["pictures"][1]["problem"]


def test_a_lack_of_memory_is_not_the_pictures_fault(data, monkeypatch):
    def no_room(*_, **__):
        raise DataError("0.png: there is not enough memory to decode it")

    with monkeypatch.context() as patched:
        patched.setattr("fairhuman.studio.pictures.decode", no_room)
        assert data.get("/data/thumb", name="photos", number=0).status_code == 404
    assert data.get("/data/thumb", name="photos", number=0).status_code == 200


def test_a_score_that_is_no_number_is_none(opened, photos):
    row = {"file_name": "0.png", "faces": [[4, 5, 20, 25], [5, 6, 20, 25]], "face_scores": [float("nan"), 0.25]}
    (photos / "metadata.jsonl").write_text(json.dumps(row))
    studio = opened(photos)
    while not studio.get("/api/data", name="photos").json()["done"]:
        time.sleep(0.01)
    assert studio.get("/api/picture", name="photos", number=0).json()["scores"]["face"] == [None, 0.25]


def test_what_training_sees_of_a_picture(data):
    data.post(
        "/api/change",
        {"name": "photos", "number": 3, "key": "3.png", "version": 0, "region": "feet", "boxes": [[63, 0, 64, 48]]},
    )
    crops = [data.get("/api/seen", name="photos", number=3, draw=draw, region="feet").json() for draw in range(3)]
    assert "feet: less than 50 % of it is in this crop, so it counts as not annotated" in {c["lines"][2] for c in crops}
    assert crops[0]["size"] == "enlarged 21 times: the picture has 64 × 48, training 1024 × 1024"
    found = data.get("/api/seen", name="photos", number=1, draw=2).json()
    assert [line.split(":")[0] for line in found["lines"]] == ["face", "hand"]
    assert "latent cells" in found["lines"][0]
    assert data.get("/data/seen", name="photos", number=1, draw=2).headers["content-type"] == "image/png"


def test_the_latent_grid_is_that_of_the_run_s_model(opened, photos, run):
    (run / "recipe.yaml").write_text("model: small\ndata: photos\nout: mpd\nsteps: 1\nresolution: 128\n")
    other = shutil.copytree(run, run.parent / "sdxl") / "recipe.yaml"
    other.write_text(other.read_text().replace("model: small", "model: SDXL"))
    studio = opened(photos, run.parent)
    while not studio.get("/api/data", name="photos").json()["done"]:
        time.sleep(0.01)
    place = {"name": "photos", "number": 0}
    lines = [studio.get("/api/seen", **place, like=f"runs/{one}").json()["lines"][0] for one in ("mpd", "sdxl")]
    small, sdxl = (float(re.search(r"([0-9.]+) latent cells", line)[1]) for line in lines)
    assert small == pytest.approx(4 * sdxl, abs=0.3), "cells of 4 and of 8 pixels"


def test_a_number_that_another_picture_has_by_now_shows_nothing_under_the_old_key(data, photos):
    before = data.get("/api/data", name="photos").json()["read_at"]
    rows = (photos / "metadata.jsonl").read_text().splitlines()
    (photos / "metadata.jsonl").write_text("\n".join(rows[1:]))
    data.post("/api/reload", {"name": "photos"})
    while not (facts := data.get("/api/data", name="photos").json())["done"]:
        time.sleep(0.01)
    assert facts["read_at"] > before  # so that no address is one that a browser has kept
    for path in ("/api/picture", "/data/thumb", "/data/picture", "/data/seen"):
        for key, status in (("0.png", 409), ("1.png", 200)):
            assert data.get(path, name="photos", number=0, key=key).status_code == status


def test_pictures_are_named_by_numbers_alone(data):
    for number in (2, 5, 10**9):
        for path in ("/api/picture", "/data/thumb", "/data/picture", "/data/seen"):
            assert data.get(path, name="photos", number=number).status_code == 404
    assert data.get("/api/picture", name="photos", number="../0").status_code == 422
    assert data.get("/api/picture", name="../photos", number=0).status_code == 404
    assert data.get("/api/pictures", name="photos", state="odd").status_code == 422
    assert data.get("/data", name="photos").status_code == 200
