"""Grids: the same prompt in a row, the same frame in all columns, and a page that says how it was made."""

import base64
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.compare.grid.grid import choose_rows, write_grid
from fairhuman.compare.grid.grid_figure import GAP, HEIGHT, MARGIN
from fairhuman.compare.grid.matching import match_pictures
from fairhuman.detect.detection import Picture
from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.generate.sample import save_png
from fairhuman.record import Box

PROMPTS = ["a woman <b>waving</b> for $5 and $6", "two men", "写真 of a child"]
RED, GREEN, BLUE = (220, 30, 30), (30, 180, 30), (30, 30, 220)


def marked(
    colour: tuple[int, int, int], size: tuple[int, int] = (64, 64), at: tuple[float, float] = (0.5, 0.25)
) -> Image.Image:
    """Grey, with a square of a quarter of the height around a place in shares of the sides."""
    picture = Image.new("RGB", size, (128, 128, 128))
    side = size[1] // 4
    corner = (round(at[0] * size[0] - side / 2), round(at[1] * size[1] - side / 2))
    picture.paste(colour, (*corner, corner[0] + side, corner[1] + side))
    return picture


def write_method(
    folder: Path,
    colour: tuple[int, int, int] = RED,
    size: tuple[int, int] = (64, 64),
    changed: Mapping[int, Mapping[str, str]] | None = None,
    **entries: str,
) -> Path:
    """A folder as `fairhuman sample` writes it; `changed` holds other entries of some prompts."""
    for number, prompt in enumerate(PROMPTS):
        texts = {"prompt": prompt, "prompt_index": str(number), "picture_index": "0", "seed": "0", "steps": "30"}
        save_png(
            marked(colour, size),
            folder / f"{number:05d}-00.png",
            texts | entries | dict((changed or {}).get(number, {})),
        )
    return folder


def write_plain(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        marked((10 * number, 0, 255)).save(folder / f"figure {number + 8}.jpg")
    return folder


def boxed(picture: Picture) -> dict[str, list[Box]]:
    """The square of `marked` as a face; never a hand."""
    rows, columns = np.nonzero(np.ptp(picture.astype(int), axis=2) > 60)
    if not len(rows):
        return {"face": [], "hand": []}
    return {"face": [Box(float(columns.min()), float(rows.min()), columns.max() + 1.0, rows.max() + 1.0)], "hand": []}


def pictures_of(page: str, alt: str) -> list[Image.Image]:
    found = re.findall(rf'<img src="data:image/jpeg;base64,([^"]*)" alt="{re.escape(alt)}"', page)
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in found]


@pytest.fixture
def methods(tmp_path: Path) -> dict[str, Path]:
    return {
        "base": write_method(tmp_path / "base", RED),
        "large": write_method(tmp_path / "large", GREEN, size=(128, 128), seed="5"),
        "closed": write_plain(tmp_path / "closed"),
    }


def test_rows_are_prompts_and_columns_methods_in_order(methods: dict[str, Path]) -> None:
    rows = match_pictures(methods)
    assert [row.prompt for row in rows] == PROMPTS
    assert [list(row.pictures) for row in rows] == [list(methods)] * 3
    names = [[drawn.file.name for drawn in row.pictures.values()] for row in rows]
    assert names[1] == ["00001-00.png", "00001-00.png", "figure 9.jpg"]
    assert names[2][2] == "figure 10.jpg"  # after 9


def test_matching_is_by_entries_not_by_names(tmp_path: Path) -> None:
    methods = {name: write_method(tmp_path / name) for name in ("a", "b")}
    (methods["b"] / "00000-00.png").rename(methods["b"] / "z.png")
    assert match_pictures(methods)[0].pictures["b"].file.name == "z.png"


def test_grid_has_the_same_frame_in_all_methods_and_says_how_it_was_made(
    methods: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    page = write_grid(methods, out, zoom_on="base", detect=boxed).read_text(encoding="utf-8")
    assert sorted(file.name for file in out.iterdir()) == ["grid.html", "grid.pdf", "grid.png"]
    for text in (
        "All 3 rows.",
        "detected in the pictures of base. All methods share the same frame",
        "No hand was found in base in row 0, 1, 2, so no hand close-up for any method.",
        "Methods differ in seed, so pictures in a row also differ in their noise (base: 0; large: 5)",
        "closed: no text entries, matched by the order of file names",
        "Sizes differ. All pictures are scaled to a height of 320 px; original sizes: base: 64 x 64; large: 128 x 128",
        "a woman &lt;b&gt;waving&lt;/b&gt; for $5 and $6",
    ):
        assert text in re.sub(r"&#39;", "'", page)
    assert "differ in steps" not in page
    assert page.count("no hand found in base") == 9
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    for name, colour in (("base", RED), ("large", GREEN)):
        for zoom in pictures_of(page, f"{name}: face"):
            # the frame is 1.7 times the square, which is in its middle: the same in pictures of both sizes
            share = (np.abs(np.asarray(zoom, dtype=int) - colour).max(axis=2) < 40).mean()
            assert share == pytest.approx(1 / 1.7**2, abs=0.05)
    assert {picture.size for picture in pictures_of(page, "large: two men")} == {(HEIGHT, HEIGHT)}


def test_figure_has_every_picture_and_the_pdf_has_text(methods: dict[str, Path], tmp_path: Path) -> None:
    write_grid(methods, tmp_path / "out", rows=[1], expected=[{"face": [Box(24, 8, 40, 24)]}] * 3)
    pixels_hwc = np.asarray(Image.open(tmp_path / "out" / "grid.png").convert("RGB"), dtype=int)
    for column, colour in enumerate((RED, GREEN)):
        places = np.argwhere(np.abs(pixels_hwc - colour).max(axis=2) < 12)
        left = MARGIN + column * (HEIGHT + GAP)
        assert left <= places[:, 1].min()
        assert places[:, 1].max() < left + HEIGHT
        # the square in the picture and in the close-up, which is half as wide as the picture; both have soft edges
        assert len(places) == pytest.approx((HEIGHT / 4) ** 2 + ((HEIGHT - GAP) / 2 / 1.7) ** 2, rel=0.15)
    pdf = (tmp_path / "out" / "grid.pdf").read_bytes()
    assert b"/FontFile2" in pdf  # letters, not their outlines
    assert b"/Type3" not in pdf


def test_the_same_grid_is_the_same_bytes(methods: dict[str, Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_grid({"base": methods["base"]}, tmp_path / name, count=2)
    for kind in ("html", "png", "pdf"):
        assert (tmp_path / "one" / f"grid.{kind}").read_bytes() == (tmp_path / "two" / f"grid.{kind}").read_bytes()


def test_expected_places_are_pixels_of_the_first_method(methods: dict[str, Path], tmp_path: Path) -> None:
    expected = [{"hand": [Box(24, 8, 40, 24)]}, {}, {}]
    page = write_grid(methods, tmp_path / "out", rows=[1, 0], expected=expected).read_text(encoding="utf-8")
    [zoom] = pictures_of(page, "large: hand")
    assert (np.abs(np.asarray(zoom, dtype=int) - GREEN).max(axis=2) < 40).mean() == pytest.approx(1 / 1.7**2, abs=0.05)
    assert "Rows 1, 0 of 3 (the first is 0), picked by hand." in page
    assert "No face is expected in row 1, 0" in page
    assert "No hand is expected in row 1," in page
    with pytest.raises(RecipeError, match=r"expected must hold boxes for each of the 3 rows, found 1"):
        write_grid(methods, tmp_path / "out", expected=expected[:1])
    with pytest.raises(RecipeError, match=r"00000-00.png of 'base': hand: a box must have an area .* in 64 x 64"):
        write_grid(methods, tmp_path / "out", expected=[{"hand": [Box(90, 8, 99, 24)]}, {}, {}])


def test_grey_sixteen_bit_and_narrow_pictures_are_shown(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    Image.fromarray(np.full((40, 30), 40_000, np.uint16)).save(folder / "1.png")
    marked(BLUE, (90, 40)).convert("L").save(folder / "2.png")
    page = write_grid({"odd": folder}, tmp_path / "out").read_text(encoding="utf-8")
    [grey] = pictures_of(page, "odd: 1.png")
    assert grey.size == (HEIGHT * 30 // 40, HEIGHT)
    assert abs(int(np.asarray(grey).mean()) - 40_000 // 257) <= 1
    assert "No close-ups." in page


def test_a_method_without_faces_and_hands_is_no_error_but_said(tmp_path: Path) -> None:
    methods = {"base": write_method(tmp_path / "base"), "grey": write_method(tmp_path / "grey", (128, 128, 128))}
    told: list[str] = []
    page = write_grid(methods, tmp_path / "out", zoom_on="grey", detect=boxed, tell=told.append).read_text()
    assert told == [
        "No close-ups: no face and no hand was found in the pictures of grey. Place them by another method, or by the "
        "boxes of a data set."
    ]
    assert f'<p class="missing">{told[0]}</p>' in page
    assert not pictures_of(page, "base: face")
    assert "no face found" not in page, "no empty frames"


def test_boxes_that_a_detector_puts_outside_are_no_error(tmp_path: Path) -> None:
    """A detector may guess a hand beyond the edge."""
    methods = {"base": write_method(tmp_path / "base")}

    def outside(_: Picture) -> dict[str, list[Box]]:
        return {"face": [Box(50, 10, 70, 40)], "hand": [Box(70, 10, 90, 20), Box(5, 5, 5, 9)]}

    page = write_grid(methods, tmp_path / "out", zoom_on="base", detect=outside).read_text()
    assert len(pictures_of(page, "base: face")) == 3, "its centre is inside"
    assert not pictures_of(page, "base: hand")


def test_large_pictures_are_shown_large_and_many_of_them_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_method(tmp_path / "large", size=(640, 800))
    page = write_grid({"large": folder}, tmp_path / "out").read_text()
    assert pictures_of(page, "large: two men")[0].size == (640, 800)
    assert "All pictures are scaled to a height of 800 px; original sizes: large: 640 x 800." in page
    monkeypatch.setattr("fairhuman.compare.grid.grid.PAGE_PIXELS", 3 * 400 * 500)
    page = write_grid({"large": folder}, tmp_path / "out").read_text()
    assert pictures_of(page, "large: two men")[0].size == (400, 500)


def test_rows_are_drawn_at_random_or_picked_and_told(tmp_path: Path) -> None:
    drawn = {tuple(choose_rows(20, None, 5, seed)[0]) for seed in range(8)}
    assert len(drawn) == 8
    assert all(sorted(set(rows)) == list(rows) and len(rows) == 5 for rows in drawn)
    assert choose_rows(20, None, 5, 3) == choose_rows(20, None, 5, 3)
    assert choose_rows(20, None, 5, 3)[1] == "5 of 20 rows, drawn at random with seed 3."
    assert choose_rows(4, None, 4, 0)[0] == [0, 1, 2, 3]
    for rows, count in ((None, 0), (None, 21), ([], None), ([1, 1], None), ([20], None), ([1], 1)):
        with pytest.raises(RecipeError, match=r"rows|count"):
            choose_rows(20, rows, count, 0)
    with pytest.raises(RecipeError, match=r"--seed must be at least 0, found -1"):
        choose_rows(20, None, 3, -1)


def break_prompt(folders: dict[str, Path]) -> None:
    write_method(folders["large"], changed={1: {"prompt": "three men"}})


def break_missing(folders: dict[str, Path]) -> None:
    (folders["large"] / "00002-00.png").unlink()


def break_missing_in_first(folders: dict[str, Path]) -> None:
    (folders["base"] / "00000-00.png").unlink()


def break_count(folders: dict[str, Path]) -> None:
    (folders["closed"] / "figure 8.jpg").unlink()


def break_partly(folders: dict[str, Path]) -> None:
    marked(RED).save(folders["base"] / "00001-00.png")


def break_twice(folders: dict[str, Path]) -> None:
    write_method(folders["base"], changed={2: {"prompt_index": "1"}})


def break_number(folders: dict[str, Path]) -> None:
    write_method(folders["base"], changed={2: {"prompt_index": "-1"}})


def break_long_number(folders: dict[str, Path]) -> None:
    write_method(folders["base"], changed={2: {"prompt_index": 5000 * "1"}})


def break_header(folders: dict[str, Path]) -> None:
    (folders["closed"] / "figure 9.jpg").write_bytes(b"no picture")


def break_body(folders: dict[str, Path]) -> None:
    file = folders["large"] / "00001-00.png"
    file.write_bytes(file.read_bytes()[:-60])


def break_folder(folders: dict[str, Path]) -> None:
    folders["base"] = folders["base"] / "nowhere"


def break_empty(folders: dict[str, Path]) -> None:
    folders["base"] = folders["base"] / "empty"
    folders["base"].mkdir()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (break_prompt, r"'large': 00001-00.png has the prompt 'three men', but 00001-00.png of 'base' has 'two men'"),
        (break_missing, r"'large': lacks picture 0 of prompt 2, '写真 of a child', which 'base' has in 00002-00.png"),
        (break_missing_in_first, r"'base': lacks picture 0 of prompt 0, .* which 'large' has in 00000-00.png"),
        (break_count, r"'closed': .* as many as 'base', 3; found 2"),
        (break_partly, r"'base': either all pictures or none .* 1 of 3 have none, the first is 00001-00.png"),
        (break_twice, r"'base': 00001-00.png and 00002-00.png are both picture 0 of prompt 1"),
        (break_number, r"'base': 00002-00.png: .* must be numbers from 0, found '-1' and '0'"),
        (break_long_number, r"'base': 00002-00.png: .* must be numbers from 0, found '1{20}' and '0'"),
        (break_header, r"'closed': not a picture \(figure 9.jpg"),
        (break_body, r"'large': picture is cut off or damaged \(00001-00.png"),
        (break_folder, r"'base': expected a folder of pictures, found none at .*nowhere"),
        (break_empty, r"'base': expected pictures in .*empty, found none"),
    ],
)
def test_methods_that_do_not_fit_are_named(
    methods: dict[str, Path], tmp_path: Path, break_it: Callable[[dict[str, Path]], None], message: str
) -> None:
    break_it(methods)
    with pytest.raises(DataError, match=message):
        write_grid(methods, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_arguments_are_checked(methods: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"zoom_on must be one of base, large, closed, found 'bas'"):
        write_grid(methods, tmp_path, zoom_on="bas")
    with pytest.raises(RecipeError, match=r"zoom_on and expected both"):
        write_grid(methods, tmp_path, zoom_on="base", expected=[{}] * 3)
    with pytest.raises(FairHumanError, match=r"methods: expected at least one"):
        write_grid({}, tmp_path)


def test_a_figure_of_too_many_rows_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(100):
        Image.new("RGB", (16, 16)).save(folder / f"{number}.png")
    with pytest.raises(RecipeError, match=r"30000 pixels per side, 100 rows take \d+"):
        write_grid({"many": folder}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_prompts_of_which_the_pictures_follow_the_beginning_are_told(tmp_path: Path) -> None:
    cut, said = {1: {"tokens_read": "77"}}, []
    methods = {name: write_method(tmp_path / name, changed=cut) for name in ("base", "MPD")}
    page = write_grid(methods, tmp_path / "grid", tell=said.append).read_text(encoding="utf-8")
    told = "1 of 3 prompts is longer than the 77 tokens that the model reads: the pictures follow the first 77 alone"
    assert said == [told]
    assert page.count(told) == 1
