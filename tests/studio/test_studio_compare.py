"""Comparisons: which pictures stand together, stars and notes, and what a study gets."""

import json
import shlex
import shutil
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fairhuman.cli.options import named_folders
from fairhuman.studio.compare import CHOICES, LEFT_OUT


def draw(folder, index, prompt, seed, **further):
    entries = PngImagePlugin.PngInfo()
    texts = {"prompt": prompt, "prompt_index": str(index), "picture_index": "0", "seed": "3", **further}
    for name, value in texts.items():
        entries.add_itxt(name, value)
    entries.add_itxt("drawn_with", '{"fairhuman": 1}')
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{index:05d}-00.png", pnginfo=entries)


@pytest.fixture
def samples(tmp_path):
    """Three prompts by two methods, of which one lacks the last."""
    folder = tmp_path / "samples"
    for index, prompt in enumerate(("a woman", "two men", "a child")):
        draw(folder / "base", index, prompt, index)
        if index < 2:
            draw(folder / "mpd", index, prompt, 9 + index)
    return folder


BOTH = {"name": ["base", "mpd"]}


def test_pictures_of_one_prompt_stand_together(opened, samples):
    studio = opened(samples)
    found = studio.get("/api/compare", **BOTH).json()
    assert [(row["label"], row["prompt"], row["star"]) for row in found["rows"]] == [
        ("00000-00.png", "a woman", False),
        ("00001-00.png", "two men", False),
    ]
    assert any("prompt 2, picture 0: not by mpd" in note for note in found["notes"])
    picture = studio.get("/compare/picture", **BOTH, row=found["rows"][1]["id"], of="mpd")
    assert picture.content == (samples / "mpd" / "00001-00.png").read_bytes()
    first = found["rows"][0]["id"]
    for wrong in ({"row": "0", "of": "mpd"}, {"row": first, "of": "ls"}, {"row": first, "of": "../mpd"}):
        assert studio.get("/compare/picture", **BOTH, **wrong).status_code == 404
    assert studio.get("/compare", **BOTH).status_code == 200
    assert studio.get("/compare", name="nothing").status_code == 404


def test_a_study_of_folders_with_the_same_last_name_and_an_equals_sign_can_be_made(opened, tmp_path):
    for name in ("lr=1/samples", "lr=2/samples"):
        draw(tmp_path / "runs" / name, 0, "a woman", 3)
    studio, names = opened(tmp_path / "runs"), ["lr=1/samples", "lr=2/samples"]
    choice = {"names": names, "row": "00000-00.png: a woman", "star": True, "note": ""}
    assert studio.post("/api/choice", choice).status_code == 200
    words = shlex.split(studio.post("/api/study", {"names": names}).json()["command"])
    methods = [after for before, after in pairwise(words) if before == "--method"]
    assert named_folders(methods) == {name.replace("=", "-"): tmp_path / "runs" / name for name in names}


def test_stars_and_notes_stay_and_a_study_leaves_out_the_others(opened, samples):
    studio = opened(samples)
    names = BOTH["name"]
    nothing = studio.post("/api/study", {"names": names})
    assert (nothing.status_code, "no row has a star" in nothing.json()["message"]) == (422, True)
    choice = {"names": names, "row": "00001-00.png: two men", "star": True, "note": " better  hands "}
    assert studio.post("/api/choice", choice).status_code == 200
    again = opened(samples).get("/api/compare", name=["mpd", "base"]).json()["rows"]
    assert [(row["star"], row["note"]) for row in again] == [(False, ""), (True, "better hands")]
    handed = studio.post("/api/study", {"names": names}).json()
    assert handed["stars"] == 1
    assert f"--method base={samples / 'base'}" in handed["command"]
    assert f"--leave-out {samples / LEFT_OUT} --pairs 1" in handed["command"]
    assert (samples / LEFT_OUT).read_text() == "00000-00.png\n"
    assert studio.post("/api/choice", {**choice, "row": "none"}).status_code == 404
    assert studio.post("/api/choice", {**choice, "names": ["base", "base"]}).status_code == 422
    (samples / CHOICES).write_text("nonsense\n{}\n")
    assert studio.get("/api/compare", **BOTH).status_code == 422


def test_stars_are_found_however_the_studio_is_opened(opened, samples, tmp_path):
    other = tmp_path / "other"
    draw(other / "ls", 0, "a woman", 5)
    choice = {"names": ["samples/base", "samples/mpd"], "row": "00000-00.png: a woman", "star": True}

    def stars(*paths, names):
        rows = opened(*paths).get("/api/compare", name=names).json()["rows"]
        return [row["star"] for row in rows]

    row = {"at": "2026-01-01T00:00:00+00:00", "names": ["base", "mpd"], "row": "00001-00.png: two men", "star": True}
    (samples / CHOICES).write_text(json.dumps(row | {"note": ""}) + "\n")  # of an earlier version
    assert opened(samples, other).post("/api/choice", choice).status_code == 200
    assert stars(samples, names=["base", "mpd"]) == [True, True]
    assert stars(samples, other, names=["samples/base", "samples/mpd"]) == [True, True]
    assert stars(other, samples, names=["samples/mpd", "samples/base"]) == [True, True]
    assert stars(samples, other, names=["samples/base", "other/ls"]) == [False]
    across = {**choice, "names": ["samples/base", "other/ls"]}
    assert opened(samples, other).post("/api/choice", across).status_code == 200
    assert stars(samples, other, names=["samples/base", "other/ls"]) == [True]
    assert stars(other, samples, names=["samples/base", "other/ls"]) == [True]
    opened(other, samples).post("/api/choice", {**choice, "star": False})
    assert stars(samples, names=["base", "mpd"]) == [False, True]


def test_what_differs_names_the_model_s_parts(opened, tmp_path):
    draw(tmp_path / "base", 0, "a woman", 1, model="small", lora="", lora_weight="")
    draw(tmp_path / "mine", 0, "a woman", 2, model="small", lora="runs/mine/lora.safetensors", lora_weight="0.8")
    notes = opened(tmp_path).get("/api/compare", name=["base", "mine"]).json()["notes"]
    assert notes == ["LoRA: base: none; mine: runs/mine/lora.safetensors (weight 0.8).", "Same seed for base, mine: 3."]


def test_a_weight_without_the_part_it_is_of_names_no_part(opened, tmp_path):
    draw(tmp_path / "base", 0, "a woman", 1, lora="runs/mine/lora.safetensors", lora_weight="0.8")
    draw(tmp_path / "mine", 0, "a woman", 2, lora_weight="0.8")
    notes = opened(tmp_path).get("/api/compare", name=["base", "mine"]).json()["notes"]
    assert notes[0] == "LoRA: base: runs/mine/lora.safetensors (weight 0.8); mine: none."


def test_runs_are_compared_by_their_last_previews(opened, run):
    shutil.copytree(run, run.parent / "ls")
    index = json.loads((run.parent / "ls" / "previews" / "index.json").read_text())
    index["rows"] = index["rows"][1:]
    (run.parent / "ls" / "previews" / "index.json").write_text(json.dumps(index))
    studio = opened(run.parent)
    found = studio.get("/api/compare", name=["mpd", "ls"]).json()
    assert [row["label"] for row in found["rows"]] == ["seed 101", "seed 102"]
    assert found["notes"] == ["mpd: step 200.", "ls: step 200."]
    picture = studio.get("/compare/picture", name=["mpd", "ls"], row=found["rows"][0]["id"], of="ls")
    assert picture.content == (run.parent / "ls/previews/step-000200/row-01-caption.png").read_bytes()
    assert studio.post("/api/study", {"names": ["mpd", "ls"]}).status_code == 422
