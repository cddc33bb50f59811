"""Making a study: what is drawn, what is left out, and that nothing but the pixels tells the methods apart."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman import config
from fairhuman.detect.detection import Picture
from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.record import Box
from fairhuman.study.create import ZOOM, create_study
from fairhuman.study.equal import equal_notes
from fairhuman.study.pictures import SHARP
from fairhuman.study.shown import load_shown
from fairhuman.study.study import (
    CREATION,
    DESIGN,
    OVERALL,
    PICTURES,
    SETTINGS,
    Design,
    StudyItem,
    StudySettings,
    load_design,
)
from fairhuman.utils.digest import DamageError
from helpers.damage import flip
from helpers.study_pictures import PROMPTS, draw, write_method
from helpers.tiny_pictures import noise


def boxed(picture: Picture) -> dict[str, list[Box]]:
    height = picture.shape[0]
    return {"face": [Box(0, 0, height / 4, height / 4)], "hand": [Box(height / 2, 0, height, height / 2)]}


@pytest.fixture
def methods(tmp_path: Path) -> dict[str, Path]:
    return {"base": write_method(tmp_path / "base", 50), "ours": write_method(tmp_path / "ours", 200)}


def study(**values: object) -> StudySettings:
    return StudySettings.model_validate({"items": 5, "participants": 4, "checks": 2, **values})


def make(
    folder: Path, methods: dict[str, Path], settings: StudySettings, **options: object
) -> tuple[Design, list[str]]:
    said: list[str] = []
    design = create_study(folder, methods, None, settings, said.append, detect=boxed, **options)  # type: ignore[arg-type]
    return design, said


def real(design: Design) -> list[StudyItem]:
    return [item for item in design.items if item.better is None]


def files(item: StudyItem) -> list[list[str]]:
    """Groups of file names that people see together."""
    return [list(item.pictures.values()), *map(list, zip(*item.zooms.values(), strict=True))]


def test_a_study_holds_settings_design_and_pictures(tmp_path: Path, methods: dict[str, Path]) -> None:
    design, said = make(tmp_path / "study", methods, study())
    folder = tmp_path / "study"
    assert load_design(folder) == design
    assert config.load(StudySettings, folder / SETTINGS) == study()
    assert {file.name for file in folder.iterdir()} == {SETTINGS, DESIGN, CREATION, PICTURES}
    named = {name for item in design.items for group in files(item) for name in group}
    assert {file.name for file in (folder / PICTURES).iterdir()} == named
    assert len(real(design)) == 5
    assert len(design.items) == 7
    for item in real(design):
        number = PROMPTS.index(item.prompt)
        for method, shade in (("base", 50), ("ours", 200)):
            with Image.open(folder / PICTURES / item.pictures[method]) as picture:
                corner = np.asarray(picture)[5, 5].astype(int)
            assert abs(corner - [20 * number, shade, 0]).max() < 12, "the prompt's picture by that method"
    assert "5 of 8 prompts, drawn with seed 0; 0 excluded." in said
    assert json.loads((folder / CREATION).read_text())["notes"] == said


def test_nothing_but_pixels_tells_methods_apart(tmp_path: Path) -> None:
    """One method's files are larger, older, of another size and kind, and full of entries."""
    base = write_method(tmp_path / "base", 50, seed="secret")
    noisy = tmp_path / "MPD"
    noisy.mkdir()
    for number in range(8):
        rough = noise(128, 96, 90, number).convert("RGB")
        exif = Image.Exif()
        exif[0x010E] = "secret"
        rough.save(noisy / f"{number}.jpg", exif=exif, comment="secret", quality=40)
    folder = tmp_path / "study"
    design, said = make(folder, {"base": base, "MPD": noisy}, study())
    assert "MPD: 5 of 5 pictures were downscaled or centre-cropped to the smallest size of their item." in said
    times = set()
    for item in design.items:
        for group in files(item):
            lengths, looks = set(), set()
            for name in group:
                content = (folder / PICTURES / name).read_bytes()
                assert len(name) == 36
                assert b"secret" not in content
                lengths.add(len(content))
                times.add((folder / PICTURES / name).stat().st_mtime_ns)
                with Image.open(folder / PICTURES / name) as picture:
                    picture.load()
                    looks.add(
                        (picture.size, picture.format, str(picture.quantization), *sorted(map(str, picture.info)))
                    )
                    assert not {"exif", "comment", "icc_profile"} & set(picture.info)
            assert len(lengths) == 1, "one byte length"
            assert len(looks) == 1, "one size, format and quality"
    assert len(times) == 1
    names = [name for item in design.items for group in files(item) for name in group]
    assert len(set(names)) == len(names)


def test_close_ups_are_at_the_same_place_in_all_methods(tmp_path: Path, methods: dict[str, Path]) -> None:
    looked_at = []

    def detect(picture: Picture) -> dict[str, list[Box]]:
        looked_at.append(int(picture[5, 5, 1]))
        return boxed(picture)

    folder = tmp_path / "study"
    design = create_study(folder, methods, None, study(checks=0), print, zoom_on="ours", detect=detect)
    assert set(looked_at) == {200}, "only pictures of the method that zoom_on names"
    for item in design.items:
        assert {len(names) for names in item.zooms.values()} == {2}
        for method, shade in (("base", 50), ("ours", 200)):
            with Image.open(folder / PICTURES / item.zooms[method][0]) as face:
                assert face.size == (ZOOM, ZOOM)
                assert abs(int(np.asarray(face)[10, 10, 1]) - shade) < 12


def test_without_a_question_about_them_nothing_is_looked_for(tmp_path: Path, methods: dict[str, Path]) -> None:
    def detect(_: Picture) -> dict[str, list[Box]]:
        raise AssertionError("looked for faces")

    settings = study(questions=[OVERALL.model_dump()])
    design = create_study(tmp_path / "study", methods, None, settings, print, detect=detect)
    assert {names for item in design.items for names in item.zooms.values()} == {()}


def test_attention_checks_are_a_picture_against_itself_made_worse(tmp_path: Path, methods: dict[str, Path]) -> None:
    design, _ = make(tmp_path / "study", methods, study(checks=3))
    assert [item.better for item in design.items] == [None] * 5 + [SHARP] * 3
    judged = {item.prompt for item in real(design)}
    for item in design.items[5:]:
        assert item.prompt not in judged, "of prompts that nobody judges, as there are some"
        contrast = {}
        for name, file in item.pictures.items():
            with Image.open(tmp_path / "study" / PICTURES / file) as picture:
                contrast[name] = float(np.asarray(picture).astype(float).std())
        assert len(contrast) == 2
        assert contrast[SHARP] > 1.5 * max(value for name, value in contrast.items() if name != SHARP)
    assert all(sum(trial.item >= 5 for trial in row) == 3 for row in design.participants)


def test_checks_have_as_many_pictures_as_are_shown(tmp_path: Path, methods: dict[str, Path]) -> None:
    three = {**methods, "third": write_method(tmp_path / "third", 120), "4th": write_method(tmp_path / "4th", 90)}
    design, _ = make(tmp_path / "study", three, study(items=8, shown=4, checks=1))
    assert len(design.items[-1].pictures) == 4
    assert len(set(design.items[-1].pictures.values())) == 4


def test_what_a_method_lacks_or_a_person_named_is_left_out_and_said(tmp_path: Path) -> None:
    methods = {"base": write_method(tmp_path / "base", 50), "ours": write_method(tmp_path / "ours", 9, without=[2])}
    (tmp_path / "hand.txt").write_text(f"{PROMPTS[4]}\n\n00006-00.png\n")
    (methods["base"] / "00001-00.png").write_bytes((methods["base"] / "00001-00.png").read_bytes()[:-60])
    design, said = make(tmp_path / "study", methods, study(items=4), leave_out=tmp_path / "hand.txt")
    assert {item.prompt for item in real(design)} == {PROMPTS[number] for number in (0, 3, 5, 7)}
    assert "prompt 2, picture 0: not by ours" in said
    assert f"00004-00.png, {PROMPTS[4]!r}: excluded by hand" in said
    assert any(text.startswith("00001-00.png") and "cut off or damaged" in text for text in said)
    assert any(text.endswith("4 excluded.") for text in said)
    with pytest.raises(RecipeError, match=r"items must be at most the number of usable prompts, 4; found 5; .*"):
        make(tmp_path / "more", methods, study(items=5), leave_out=tmp_path / "hand.txt")
    assert not (tmp_path / "more").exists()


def test_the_seed_draws(tmp_path: Path, methods: dict[str, Path]) -> None:
    drawn = [
        [item.prompt for item in make(tmp_path / name, methods, study(seed=seed))[0].items]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_equal_pictures_are_counted_and_two_equal_methods_refused() -> None:
    digests = [{"a": "1", "b": "1", "c": "3"}, {"a": "4", "b": "5", "c": "6"}]
    (note,) = equal_notes(digests, ["0.png", "1.png"])
    assert note.startswith("a and b have equal pictures in 1 of 2 items")
    assert note.endswith("leaves such prompts out: 0.png")
    assert equal_notes(digests[1:], ["1.png"]) == []
    with pytest.raises(RecipeError, match="a and b: 1 pair, all equal pixel by pixel"):
        equal_notes(digests[:1], ["0.png"])


def test_prompts_come_from_a_file_where_pictures_dont_tell(tmp_path: Path) -> None:
    for name, shade in (("a", 99), ("b", 100)):
        (tmp_path / name).mkdir()
        for number in range(4):
            draw(number, shade, (64, 48)).save(tmp_path / name / f"{number}.png")
    methods = {"a": tmp_path / "a", "b": tmp_path / "b"}
    settings = study(items=4, checks=0)
    with pytest.raises(RecipeError, match="give --prompts FILE"):
        make(tmp_path / "study", methods, settings)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\n")
    design = create_study(tmp_path / "study", methods, prompts, settings, print, detect=boxed)
    assert sorted(item.prompt for item in design.items) == ["one", "one", "two", "two"]
    prompts.write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match="4 pictures per method can't be divided evenly among 3 prompts"):
        create_study(tmp_path / "other", methods, prompts, settings, print, detect=boxed)


def test_bad_input_is_named_and_leaves_nothing(tmp_path: Path, methods: dict[str, Path]) -> None:
    folder = tmp_path / "study"
    lines = tmp_path / "lines.txt"
    lines.write_text("nobody\n")
    other = tmp_path / "prompts.txt"
    other.write_text("else\n" * 8)
    one = {"base": methods["base"]}
    for wrong, options, error in (
        (one, {}, "needs at least two methods, found base"),
        ({**one, "a|b": methods["ours"]}, {}, r"method's name must be .* found 'a\|b'"),
        ({**one, "tie": methods["ours"]}, {}, "found 'tie'"),
        (methods, {"zoom_on": "theirs"}, "zoom_on must be one of base, ours, found 'theirs'"),
        (methods, {"leave_out": lines}, "1 of 1 aren't, the first is 'nobody'"),
        ({**one, "none": tmp_path / "none"}, {}, "expected a folder of pictures"),
    ):
        with pytest.raises(FairHumanError, match=error):
            make(folder, wrong, study(), **options)
    with pytest.raises(RecipeError, match="shown must be at most the number of methods, 2; found 3"):
        make(folder, methods, study(shown=3))
    with pytest.raises(DataError, match="pictures of prompt 0 were sampled from"):
        create_study(folder, methods, other, study(), print, detect=boxed)
    assert not folder.exists()


def test_a_study_or_anything_else_is_never_overwritten(tmp_path: Path, methods: dict[str, Path]) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    make(folder, methods, study())
    before = (folder / DESIGN).read_bytes()
    with pytest.raises(DataError, match="holds a study already"):
        make(folder, methods, study())
    assert (folder / DESIGN).read_bytes() == before
    with pytest.raises(DataError, match="needs a new or empty folder"):
        make(methods["base"], methods, study())


def test_what_was_killed_leaves_no_study_and_can_be_repeated(tmp_path: Path, methods: dict[str, Path]) -> None:
    program = f"""
    import os, signal
    from pathlib import Path
    from fairhuman.study.create import create_study
    from fairhuman.study.study import StudySettings, OVERALL
    def progress(what, done, total):
        if what == "write" and done == 3:
            os.kill(os.getpid(), signal.SIGKILL)
    folder = Path({str(tmp_path)!r})
    methods = {{name: folder / name for name in ("base", "ours")}}
    settings = StudySettings(items=5, questions=(OVERALL,))
    create_study(folder / "study", methods, None, settings, print, progress=progress)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "study").exists()
    begun = time.time()
    make(tmp_path / "study", methods, study())
    assert load_design(tmp_path / "study").methods == ("base", "ours")
    assert (tmp_path / "study" / DESIGN).stat().st_mtime >= begun - 1
    assert not [file.name for file in tmp_path.iterdir() if "partial" in file.name]


def test_pictures_have_digests_by_which_damage_is_refused(tmp_path: Path, methods: dict[str, Path]) -> None:
    design, _ = make(tmp_path / "study", methods, study())
    shown = load_shown(tmp_path / "study")
    named = {name for item in design.items for group in files(item) for name in group}
    assert shown.digests is not None
    assert set(shown.digests) == named
    path = tmp_path / "study" / PICTURES / min(named)
    flip(path)
    with pytest.raises(DamageError, match=rf"^{path}: is damaged: differs from its digest in {CREATION}; restore it"):
        load_shown(tmp_path / "study")
    with pytest.raises(DamageError):
        shown.picture(path.name)  # by a server that runs already
    (tmp_path / "study" / CREATION).unlink()
    assert load_shown(tmp_path / "study").digests is None  # a study without digests is shown as it is
