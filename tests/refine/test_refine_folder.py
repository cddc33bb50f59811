import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fairhuman.errors import DataError, ModelError
from fairhuman.refine.attempts import ATTEMPTS
from fairhuman.refine.inpaint import Painter
from fairhuman.refine.page import summary, write_page
from fairhuman.refine.run import RECIPE, ROWS, RefineManifest, RefineOutcome, finished_rows, list_sources, refine_folder
from fairhuman.refine.settings import RefineSettings
from fairhuman.utils.journal import Journal
from helpers import warm
from helpers.refining import BOX, WEAK, Opened, look_for_board, refine
from helpers.tiny_parts import ContrastPainter, boards


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    information = PngInfo()
    information.add_itxt("prompt", "a person, waving")
    Image.fromarray(WEAK).save(folder / "a.png", pnginfo=information, dpi=(300, 300))
    Image.fromarray(boards(64, 72, {BOX: 1.0})).save(folder / "b.jpg", quality=95)
    Image.fromarray(WEAK).convert("L").save(folder / "sub" / "c.tif")
    (folder / "sub" / "c.txt").write_text("a caption", encoding="utf-8")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:200])
    (folder / "empty.jpg").write_bytes(b"")
    return folder


def test_a_folder_is_refined_copied_and_told_about(images: Path, tmp_path: Path) -> None:
    out, opened = tmp_path / "out", Opened()
    done = refine(images, out, opened)
    assert {row["name"]: (row["output"], row["outcome"]) for row in done.rows} == {
        "a.png": ("a.png", "refined"),
        "b.jpg": ("b.jpg", "good"),
        "sub/c.tif": ("sub/c.png", "refined"),
    }
    assert set(done.failed) == {"broken.png", "empty.jpg"}
    assert "cut off" in done.failed["broken.png"]
    assert (out / "b.jpg").read_bytes() == (images / "b.jpg").read_bytes()
    with Image.open(out / "a.png") as refined:
        assert refined.text["prompt"] == "a person, waving"
        assert json.loads(refined.text["refined"])["parts"][0]["taken"] == 0
        assert refined.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    with Image.open(out / "sub" / "c.png") as grey:
        assert grey.mode == "L"
        assert (np.asarray(grey)[:5] == 128).all()
    assert opened.painters[0].prompts == ["close-up of a face, a person, waving", "close-up of a face, a caption"]
    assert [row["name"] for row in Journal(out / ROWS)] == ["a.png", "b.jpg", "sub/c.tif"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image') == 6, "before, attempt and kept"
    assert page.count("<b>attempt 1</b>") == 2
    assert re.search(r"quality 0\.\d\d, accepted<", page)
    assert "broken.png" in page
    assert "a.png: face</h3>" in page
    assert summary(done)[0].startswith("3 faces, 2 poor, 2 of them improved")


def test_the_same_call_again_does_nothing_and_gives_the_same(images: Path, tmp_path: Path) -> None:
    out, opened = tmp_path / "out", Opened()
    (images / "broken.png").unlink()
    (images / "empty.jpg").unlink()
    first = refine(images, out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    again = refine(images, out, opened)
    assert again.new == 0
    assert first.new == 3
    assert list(again.rows) == json.loads(json.dumps(list(first.rows)))
    assert not opened.painters, "the model isn't loaded"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == times


def test_a_cut_off_row_a_lost_picture_and_a_changed_one_are_done_again(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = refine(images, out)
    expected = {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")}
    content = (out / ROWS).read_bytes()
    (out / ROWS).write_bytes(content[:-40])
    (out / "a.png").unlink()
    opened = Opened()
    again = refine(images, out, opened)
    assert again.new == 2
    assert len(opened.painters[0].prompts) == 2
    assert (out / ROWS).read_bytes() == content
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*.png")} == expected
    Image.fromarray(boards(64, 72, {BOX: 1.0})).convert("L").save(images / "sub" / "c.tif")
    changed = refine(images, out)
    assert changed.new == 1
    assert changed.rows[2]["outcome"] == "good"
    assert (out / "sub" / "c.tif").is_file()
    assert not (out / "sub" / "c.png").exists()
    assert len(whole.rows) == 3


def test_a_damaged_row_is_named_with_its_line(images: Path, tmp_path: Path) -> None:
    refine(images, tmp_path / "out")
    path = tmp_path / "out" / ROWS
    lines = path.read_text().splitlines()
    for damaged in (lines[1][:50], lines[1].replace('"given"', '"givem"')):
        path.write_text("\n".join([lines[0], damaged, *lines[2:], ""]))
        with pytest.raises(DataError, match=rf"^{path}:2: is damaged: "):
            refine(images, tmp_path / "out")


@pytest.mark.slow
def test_kill_9_loses_nothing_and_the_same_call_goes_on(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for number in range(30):
        Image.fromarray(np.roll(WEAK, 8 * (number % 2), axis=1)).save(images / f"{number:02d}.png")
    script = (
        "import sys; from pathlib import Path; from helpers.refining import refine\n"
        "refine(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    process = warm.Popen([sys.executable, "-c", script, images, out])
    while process.poll() is None and len(list(out.glob("*.png"))) < 3:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    there = len(finished_rows(out, list_sources(images, None)))
    done = refine(images, out)
    assert done.new == 30 - there
    assert len(done.rows) == 30
    other = tmp_path / "other"
    refine(images, other)
    for path in sorted(other.glob("*.png")):
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_prompts_are_shared_out_in_order(images: Path, tmp_path: Path) -> None:
    opened = Opened()
    refine(images, tmp_path / "out", opened, prompts=["1", "2", "3", "4", "5"])
    assert opened.painters[0].prompts == ["close-up of a face, a person, waving", "close-up of a face, 5"]
    with pytest.raises(DataError, match="5 pictures can't be divided evenly among 2"):
        list_sources(images, ["1", "2"])


def test_pictures_are_in_natural_order_as_in_grid_and_study(tmp_path: Path) -> None:
    for name in ("a/10.png", "a/9.png", "b/1.png", "10.png", "2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    sources = list_sources(tmp_path, ["1", "2", "3", "4", "5"])
    assert [source.name for source in sources] == ["2.png", "10.png", "a/9.png", "a/10.png", "b/1.png"]
    assert [source.prompt for source in sources] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda images, _: (images / "a.jpg").write_bytes(b"x"), r"a\.jpg and a\.png would both become a\.png"),
        (lambda _, out: (out.mkdir(), (out / "mine.txt").write_text("x")), "holds other files"),
        (lambda images, out: refine(images, out, seed=1), "started with settings.seed 1, not 0"),
    ],
)
def test_folders_that_would_lose_something_are_refused(
    images: Path, tmp_path: Path, spoil: Callable[[Path, Path], object], message: str
) -> None:
    out = tmp_path / "out"
    spoil(images, out)
    with pytest.raises(DataError, match=message):
        refine(images, out)


def test_a_first_try_that_failed_keeps_no_setting_from_being_changed(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def broken() -> AbstractContextManager[Painter]:
        raise ModelError("no such model")

    settings = RefineSettings(seed=1)
    started = RefineManifest(images=str(images), prompts=None, settings=settings)
    with pytest.raises(ModelError):
        refine_folder(list_sources(images, None), out, started, broken)
    assert refine(images, out).new > 0


@pytest.mark.parametrize("out", [".", "sub", "new", ".."])
def test_out_must_lie_apart_from_the_pictures(images: Path, out: str) -> None:
    with pytest.raises(DataError, match="apart"):
        refine(images, images / out)


def test_places_without_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none"):
        list_sources(tmp_path / "none", None)
    with pytest.raises(DataError, match="holds no picture"):
        list_sources(tmp_path, None)


def test_one_picture_will_do(images: Path, tmp_path: Path) -> None:
    done = refine(images / "a.png", tmp_path / "out")
    assert [row["name"] for row in done.rows] == ["a.png"]


def test_an_animation_is_copied_as_it_is(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    frames = [Image.fromarray(WEAK).convert("P"), Image.fromarray(255 - WEAK).convert("P")]
    frames[0].save(images / "a.gif", save_all=True, append_images=frames[1:])
    done = refine(images, tmp_path / "out")
    assert done.rows[0]["outcome"] == "animated"
    assert (tmp_path / "out" / "a.gif").read_bytes() == (images / "a.gif").read_bytes()


def test_the_further_picture_of_a_phones_photo_is_no_animation(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    photo = Image.fromarray(WEAK)
    photo.save(images / "a.jpg", format="MPO", save_all=True, append_images=[photo.resize((8, 6))])
    assert refine(images, tmp_path / "out").rows[0]["outcome"] != "animated"


def test_patience_may_change_between_calls(images: Path, tmp_path: Path) -> None:
    refine(images, tmp_path / "out", seconds=50)
    assert refine(images, tmp_path / "out", seconds=60).new == 0
    assert (tmp_path / "out" / RECIPE).is_file()


def test_the_page_shows_attempts_that_were_rejected_and_why(images: Path, tmp_path: Path) -> None:
    """A painter that changes nothing: no attempt is kept; without their pictures the page still stands."""

    @contextmanager
    def idle() -> Iterator[Painter]:
        yield ContrastPainter(1.0)

    out, settings = tmp_path / "out", RefineSettings(attempts=3)
    started = RefineManifest(images=str(images), prompts=None, settings=settings)
    sources = list_sources(images / "a.png", None)
    done = refine_folder(sources, out, started, idle, start_look=look_for_board)
    page = write_page(out, sources, started, done).read_text(encoding="utf-8")
    assert page.count('src="data:image') == 1 + 3 + 1, "before, the attempts and the original that was kept"
    assert page.count("rejected: quality 0.") == 3
    assert "the original, as no attempt was accepted" in page
    (out / ATTEMPTS).unlink()
    page = write_page(out, sources, started, done).read_text(encoding="utf-8")
    assert page.count("no picture of it was stored") == 3


def test_the_page_shows_doubtful_faces_and_parts_that_were_measured_again(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = refine(images, out)
    (part,) = done.rows[0]["parts"]
    doubtful = {**part, "outcome": "doubtful", "before": 0.01, "attempts": (), "taken": None, "square": None}
    again = {**part, "before": 0.39, "tried": 0.45}
    rows = [{**done.rows[0], "parts": [again, doubtful]}]
    started = RefineManifest(images=str(images), prompts=None, settings=RefineSettings())
    page = write_page(out, list_sources(images, None), started, RefineOutcome(rows, {})).read_text(encoding="utf-8")
    assert "quality 0.39 in the original, 0.45 beside the parts redrawn before it" in page
    assert "quality 0.01, left as it is" in page
    assert "a.png: face 1 of 2" in page
    assert page.count('src="data:image') == 3 + 1, "before, the attempt, what was kept; and the doubtful face"


def test_of_many_alike_parts_each_is_named_by_its_number(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = refine(images, out)
    (part,) = done.rows[0]["parts"]
    glasses = {**part, "label": "glasses", "outcome": "doubtful"}
    rows = [{**done.rows[0], "parts": [{**glasses, "number": number} for number in range(21)]}]
    started = RefineManifest(images=str(images), prompts=None, settings=RefineSettings())
    page = write_page(out, list_sources(images, None), started, RefineOutcome(rows, {})).read_text(encoding="utf-8")
    assert "a.png: glasses 1 of 21" in page
    assert "a.png: glasses 21 of 21" in page


@pytest.mark.parametrize("absolute", [False, True])
def test_a_strangers_rows_delete_nothing(images: Path, tmp_path: Path, absolute: bool) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious.txt"
    refine(images, out, Opened())
    precious.write_text("kept")
    rows = [json.loads(line) for line in (out / ROWS).read_text().splitlines()]
    output = str(precious) if absolute else "../precious.txt"
    (out / ROWS).write_text("".join(json.dumps({**row, "output": output}) + "\n" for row in rows))
    assert not finished_rows(out, list_sources(images, None)), "results that lie elsewhere"
    refine(images, out, Opened())
    assert precious.read_text() == "kept"
