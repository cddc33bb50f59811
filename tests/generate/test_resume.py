"""Sampling into a folder that holds pictures: the same command keeps them, another one is refused."""

import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fairhuman.errors import DataError
from fairhuman.generate import run
from fairhuman.generate.record import ENTRY, PictureKey, kept_pictures, read_record, to_entry
from fairhuman.generate.sample import sample, save_png
from fairhuman.models.architecture import build_small
from fairhuman.models.control import ControlModel
from fairhuman.models.controlnet import ControlNet
from fairhuman.models.fingerprint import sampled_fingerprint
from fairhuman.models.lora import LoraModel
from fairhuman.models.settings import LoraSettings
from helpers import warm

Typed = Callable[..., tuple[int, str, str]]
PROMPTS = ("a hat", "a red shirt", "two hands")
OPTIONS = ("--model", "small-untrained", "--steps", 1, "--height", 32, "--width", 32, "--batch-size", 2)


def command(out: Path, *more: object, prompts: tuple[str, ...] = PROMPTS) -> list[object]:
    texts = [part for prompt in prompts for part in ("--prompt", prompt)]
    return ["sample", out, *texts, *OPTIONS, *more]


def times(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in out.iterdir()}


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two LoRAs for the small SDXL."""
    folders = {}
    for seed, name in enumerate(("one", "two")):
        folders[name] = tmp_path_factory.mktemp(name)
        LoraModel(build_small(0), LoraSettings(rank=1), seed=seed).save(folders[name])
    return folders


def test_the_same_command_draws_what_is_missing_alone(
    tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    code, said, _ = typed(*command(out))
    assert (code, "longer than" in said) == (0, False)
    whole, before = contents(out), times(out)
    assert sorted(whole) == ["00000-00.png", "00001-00.png", "00002-00.png"]
    (out / "00001-00.png").unlink()
    (out / ".00001-00.png.partial").write_bytes(b"left by a killed process")
    assert "2 of 3 pictures are there and would be kept" in typed(*command(out, "--dry-run"))[1]
    code, said, errors = typed(*command(out))
    assert code == 0, errors
    assert f"{out}: 2 of 3 pictures are there and kept" in said
    assert contents(out) == whole, "also the picture that was drawn again, in the batch of the first time"
    assert {name for name, time in times(out).items() if time == before[name]} == {"00000-00.png", "00002-00.png"}

    def load(*_: object, **__: object) -> None:
        raise AssertionError("nothing is left to draw, so no model is needed")

    monkeypatch.setattr(run, "load_pipeline", load)
    assert typed(*command(out, "--batch-size", 1))[0] == 0
    assert contents(out) == whole


def test_more_prompts_and_more_pictures_of_each_are_added(tmp_path: Path, typed: Typed) -> None:
    out = tmp_path / "out"
    assert typed(*command(out, prompts=PROMPTS[:1]))[0] == 0
    first = times(out)
    assert typed(*command(out, "--count", 2, prompts=PROMPTS[:2]))[0] == 0
    assert sorted(times(out)) == [f"0000{prompt}-0{picture}.png" for prompt in (0, 1) for picture in (0, 1)]
    assert times(out)["00000-00.png"] == first["00000-00.png"]
    code, _, errors = typed(*command(out, prompts=PROMPTS[:2]))
    assert (code, errors.count("\n")) == (1, 1)
    assert "00000-01.png isn't among the pictures of this command; give another folder, or --redraw" in errors


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", 2), r"steps 1, not 2 \(3 pictures\)"),
        (("--seed", 1, "--guidance", 5), r"guidance 7.5, not 5.0 \(3 pictures\); seed 0, not 1 \(3 pictures\)"),
        (("--negative", "blue"), r"negative prompt '', not 'blue'"),
        (("--suffix", ", 8k"), r"prompt suffix '', not ', 8k'"),
        (("--width", 48), r"width 32, not 48"),
        (("--precision", "bf16"), r"precision 'fp32', not 'bf16'"),
        (("--model", "small"), "another model"),
        (("--lora", "one"), r"drawn with another LoRA \(3 pictures\); give"),
    ],
)
def test_other_settings_are_refused_before_the_model_is_loaded(
    tmp_path: Path, typed: Typed, lora: dict[str, Path], more: tuple[object, ...], message: str
) -> None:
    out = tmp_path / "out"
    assert typed(*command(out))[0] == 0
    before = contents(out)
    for dry in ((), ("--dry-run",)):
        code, _, errors = typed(*command(out, *(lora.get(str(one), one) for one in more), *dry))
        assert (code, errors.count("\n")) == (1, 1), errors
        assert re.search(message, errors), errors
        assert errors.startswith(f"error: {out}: holds pictures drawn with ")
        assert errors.rstrip().endswith("; give another folder, or --redraw to replace them")
    assert contents(out) == before


def test_a_lora_is_known_by_its_content_and_its_weight(tmp_path: Path, typed: Typed, lora: dict[str, Path]) -> None:
    out = tmp_path / "out"
    assert typed(*command(out, "--lora", lora["one"]))[0] == 0
    before = contents(out)
    file = next(lora["one"].glob("pytorch*"))
    assert typed(*command(out, "--lora", file))[0] == 0, "the same file by another name"
    assert contents(out) == before
    assert "drawn with another LoRA (3" in typed(*command(out, "--lora", lora["two"]))[2]
    assert "drawn with lora weight 1.0, not 0.3 (3" in typed(*command(out, "--lora", file, "--lora-weight", 0.3))[2]
    assert "drawn with lora fuse True, not False (3" in typed(*command(out, "--lora", file, "--no-fuse"))[2]
    assert contents(out) == before


def test_hashes_that_an_earlier_version_recorded_are_those_of_the_same_files(
    tmp_path: Path, typed: Typed, lora: dict[str, Path]
) -> None:
    out = tmp_path / "out"
    assert typed(*command(out, "--lora", lora["one"]))[0] == 0
    file = next(lora["one"].glob("pytorch*"))
    for picture in out.iterdir():
        record = read_record(picture)
        assert record is not None
        assert record["lora"]["content"] == hashlib.sha256(file.read_bytes()).hexdigest()
        record["lora"]["content"] = sampled_fingerprint(file)
        with Image.open(picture) as image:
            save_png(image.copy(), picture, to_entry(record))
    before = contents(out)
    assert "3 of 3 pictures are there and kept" in typed(*command(out, "--lora", file))[1]
    assert contents(out) == before
    assert "drawn with another LoRA (3" in typed(*command(out, "--lora", lora["two"]))[2]


def test_earlier_hashes_are_known_in_every_part_of_a_record(tmp_path: Path) -> None:
    def record(mole: str, control: str) -> dict[str, object]:
        return {"mole": mole, "controls": [{"weights": control, "strength": 1.0}]}

    key = PictureKey(0, 0)
    save_png(Image.new("RGB", (8, 8)), tmp_path / key.name, to_entry(record("old-mole", "old-control")))
    earlier = {"old-mole": "mole", "old-control": "control"}
    assert kept_pictures(tmp_path, {key: record("mole", "control")}, earlier) == {key}
    with pytest.raises(DataError, match=r"drawn with other control networks \(1 picture\); give"):
        kept_pictures(tmp_path, {key: record("mole", "other")}, earlier)
    with pytest.raises(DataError, match=r"drawn with another MoLE \(1 picture\); other control networks"):
        kept_pictures(tmp_path, {key: record("mole", "control")})


def test_redraw_replaces_what_sample_drew_and_nothing_else(tmp_path: Path, typed: Typed) -> None:
    out = tmp_path / "out"
    assert typed(*command(out, "--count", 2))[0] == 0
    old = contents(out)
    (out / "notes.txt").write_text("mine", encoding="utf-8")
    assert typed(*command(out, "--seed", 1, "--redraw", "--dry-run"))[0] == 0
    assert {name: content for name, content in contents(out).items() if name != "notes.txt"} == old
    assert typed(*command(out, "--seed", 1, "--redraw", "--model", tmp_path / "none"))[0] == 1, (
        "a model that isn't there"
    )
    assert {name: content for name, content in contents(out).items() if name != "notes.txt"} == old
    assert typed(*command(out, "--seed", 1, "--redraw"))[0] == 0
    assert sorted(contents(out)) == ["00000-00.png", "00001-00.png", "00002-00.png", "notes.txt"]
    assert not set(contents(out).values()) & set(old.values())
    Image.new("RGB", (8, 8)).save(out / "photo.jpg")
    for more in ((), ("--redraw",)):
        code, _, errors = typed(*command(out, "--seed", 2, *more))
        assert (code, "holds photo.jpg, which sample didn't draw; give another folder" in errors) == (1, True)
    assert len(contents(out)) == 5


def test_pictures_without_a_record_are_refused(tmp_path: Path, typed: Typed) -> None:
    [picture] = sample(build_small(0), PROMPTS[:1], run.SampleSettings(steps=1, height=32, width=32))
    save_png(picture.image, tmp_path / "00000-00.png", picture.metadata)
    code, _, errors = typed(*command(tmp_path))
    assert (code, errors.count("\n")) == (1, 1)
    assert "00000-00.png has no record of what it was drawn with, as by an earlier version; give another" in errors
    assert typed(*command(tmp_path, "--redraw"))[0] == 0
    assert read_record(tmp_path / "00000-00.png") is not None


def test_prompts_that_are_cut_are_counted_once(tmp_path: Path, typed: Typed) -> None:
    prompts = ("a person waving, " * 30, "a hat, " * 60, "a hat")
    code, said, errors = typed(*command(tmp_path / "out", "--count", 2, prompts=prompts))
    assert (code, "sequence length" in errors) == (0, False)
    assert said.count("2 of 3 prompts are longer than the 77 tokens that the model reads") == 1


def test_the_record_holds_what_a_picture_depends_on(tmp_path: Path, typed: Typed) -> None:
    out = tmp_path / "out"
    assert typed(*command(out, "--suffix", ", 8k", "--negative", "blue", prompts=("größer",)))[0] == 0
    with Image.open(out / "00000-00.png") as image:
        image.load()
        texts = dict(image.text)  # type: ignore[attr-defined]
    assert json.loads(texts[ENTRY]) == {
        "steps": 1,
        "guidance": 7.5,
        "height": 32,
        "width": 32,
        "prompt_suffix": ", 8k",
        "negative_prompt": "blue",
        "seed": 0,
        "scheduler": "UniPC",
        "model": "small-untrained",
        "precision": "fp32",
        "lora": None,
        "mole": None,
        "controls": None,
        "prompt": "größer",
    }
    assert (texts["prompt"], texts["prompt_suffix"]) == ("größer", ", 8k"), "the prompt stays as it was given"


def test_a_suffix_is_part_of_what_is_drawn() -> None:
    settings = run.SampleSettings(steps=1, height=32, width=32, prompt_suffix=", 8k")
    [one] = sample(build_small(0), ["a hat"], settings)
    [two] = sample(build_small(0), ["a hat, 8k"], settings.model_copy(update={"prompt_suffix": ""}))
    assert one.image.tobytes() == two.image.tobytes()


def test_other_conditions_are_refused(tmp_path: Path, typed: Typed) -> None:
    control = tmp_path / "control"
    base = build_small(0)
    ControlModel(base, ControlNet.new(base, ["pose"], seed=0)).save(control)
    pose = {"width": 32, "height": 32, "people": [[[8.0 + point, 2.0 * point, 1.0] for point in range(17)]]}
    (tmp_path / "pose.json").write_text(json.dumps(pose), encoding="utf-8")
    options = ("--controlnet", control, "--control", f"pose={tmp_path / 'pose.json'}")
    assert typed(*command(tmp_path / "out", *options))[0] == 0
    assert "3 of 3 pictures are there" in typed(*command(tmp_path / "out", *options))[1]
    weaker = ("--controlnet", f"{control}@0.5", *options[2:])
    assert "with other control networks (3" in typed(*command(tmp_path / "out", *weaker))[2]
    pose["people"][0][0][0] = 9.0
    (tmp_path / "pose.json").write_text(json.dumps(pose), encoding="utf-8")
    assert "drawn with other conditions (3 pictures)" in typed(*command(tmp_path / "out", *options))[2]


@pytest.mark.slow
def test_kill_9_and_the_same_command_give_the_same_bytes(tmp_path: Path, typed: Typed) -> None:
    def line(out: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "fairhuman.cli",
            *map(str, command(tmp_path / out, "--batch-size", 1, "--count", 20)),
        ]

    process = warm.Popen(line("killed"), stdout=warm.DEVNULL, stderr=warm.DEVNULL)
    deadline = time.monotonic() + 200
    while len(list((tmp_path / "killed").glob("*.png"))) < 3:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = times(tmp_path / "killed")
    assert 3 <= len(kept) < 60, "it was killed before the end"
    for out in ("killed", "whole"):
        assert typed(*line(out)[3:])[0] == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert {name: time for name, time in times(tmp_path / "killed").items() if name in kept and name[0] != "."} == {
        name: time for name, time in kept.items() if name[0] != "."
    }


def test_a_damaged_picture_is_not_kept(tmp_path: Path) -> None:
    record = {"prompt": "x"}
    file = tmp_path / "00000-00.png"
    save_png(Image.new("RGB", (32, 32), "red"), file, to_entry(record))
    wanted = {PictureKey(0, 0): record}
    assert kept_pictures(tmp_path, wanted) == set(wanted)
    content = bytearray(file.read_bytes())
    at = content.index(b"IDAT") + 8
    content[at] ^= 1
    for damaged in (content, content[:at]):
        file.write_bytes(damaged)
        assert read_record(file) == record
        assert not kept_pictures(tmp_path, wanted)
