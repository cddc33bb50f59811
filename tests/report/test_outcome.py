"""What a run's report says in words: losses, pictures that follow them or don't, and too few of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.report.outcome import ENOUGH, Moves, Outcome, hold_out_more, joined, verdict
from fairhuman.report.previews import Closeness, read_previews
from fairhuman.report.training import write_training_report
from fairhuman.stats.estimate import Estimate

NEAR = Closeness(40.0, 41.0, 12.0, 0.5, 0.8)  # sharper, although the pixels differ more
BLURRED = Closeness(40.0, 38.0, 12.0, 0.8, 0.5)
NOISY = Closeness(40.0, 41.0, 12.0, 0.9, 1.4)
AWAY = Closeness(40.0, 60.0, 50.0, 0.5, 0.9)
SAME = Closeness(40.0, 39.5, 1.0, 0.5, 0.6)
FLAT = Closeness(40.0, 30.0, 12.0, np.nan, np.nan)


def outcome(change: Estimate, *each: Closeness, name: str = "face") -> Outcome:
    before = Estimate(0.3, 0.2, 0.4, change.n)
    return Outcome(name, before, before, change, Moves(each) if each else None)


FELL, ROSE = Estimate(-0.02, -0.03, -0.01, 60), Estimate(0.02, 0.01, 0.03, 60)


@pytest.mark.parametrize(
    ("one", "sign", "said"),
    [
        (
            outcome(FELL, NEAR, NEAR),
            "good",
            "fell by 2.0 %: the 2 previews went from 50 % to 80 % of their photos' detail",
        ),
        (outcome(FELL, NEAR, NEAR, BLURRED), "good", "the 3 previews went from 60 % to 70 %"),
        (
            outcome(FELL, BLURRED),
            "bad",
            "fell by 2.0 %, but the pictures didn't follow: the preview went from 80 % to 50 %",
        ),
        (outcome(FELL, NOISY), "bad", "didn't follow: the preview went from 90 % to 140 % of its photo's detail"),
        (outcome(FELL, AWAY), "bad", "didn't follow: the preview went from 40.0 to 60.0 of 255 levels of difference"),
        (outcome(FELL, SAME, SAME), "bad", "didn't follow: the 2 previews moved by 1.0 of 255 levels"),
        (outcome(FELL, FLAT), "good", "the preview went from 40.0 to 30.0 of 255 levels"),
        (outcome(FELL), "good", "face: the held-out loss fell by 2.0 %."),
        (outcome(ROSE, NEAR), "bad", "the held-out loss rose by 2.0 %"),
        (outcome(FELL, name="global"), "good", "whole picture: the held-out loss fell"),
        (outcome(Estimate(-2e-4, -3e-4, -1e-4, 60)), "good", "the held-out loss fell by 0.02 %."),
        (outcome(Estimate(-2e-4, -4e-4, 1e-4, 60)), "", "to tell -0.02 % from 0 takes about"),
    ],
)
def test_losses_and_pictures_in_one_sentence(one: Outcome, sign: str, said: str) -> None:
    found = one.sentence()
    assert found is not None
    assert found[0] == sign
    assert said in found[1]


def test_few_pictures_get_no_verdict_and_hear_how_many_it_takes() -> None:
    few = outcome(Estimate(-0.3, -0.4, -0.2, ENOUGH - 1), NEAR)
    assert few.verdict == ("", f"too few pictures: needs {ENOUGH}")
    assert few.sentence() == ("", f"face: no verdict from {ENOUGH - 1} held-out pictures; it needs at least {ENOUGH}.")
    enough = outcome(Estimate(-0.3, -0.4, -0.2, ENOUGH), NEAR)
    assert hold_out_more([enough], 20, 80) == []
    eight = outcome(Estimate(-0.3, -0.4, -0.2, 8), NEAR)
    (advice,) = hold_out_more([enough, eight], 8, 32)
    assert "hold out 20 pictures in a new run: validation.share=0.5, or validation.data=FOLDER" in advice
    assert "validation.share" not in hold_out_more([eight], 8, 20)[0]
    assert enough.verdict == ("down", "lower")
    assert "1 held-out picture;" in outcome(Estimate(-0.3, -0.3, -0.3, 1)).sentence()[1]


def test_an_unclear_change_says_how_many_pictures_would_tell_it() -> None:
    unclear = outcome(Estimate(-0.01, -0.03, 0.01, 50))
    # half an interval of 2 % has to shrink to 1 %: four times as many pictures
    assert unclear.sentence() == (
        "",
        "face: no clear change of the held-out loss; to tell -1.0 % from 0 takes about 200 pictures, there are 50.",
    )
    assert (
        "no clear change of the held-out loss with 50 pictures" in outcome(Estimate(0.0, -0.03, 0.03, 50)).sentence()[1]
    )


def test_without_a_finite_change_there_is_no_sentence() -> None:
    nothing = Estimate(np.nan, np.nan, np.nan, 0)
    assert outcome(nothing).sentence() is None
    assert outcome(nothing).verdict == verdict(nothing) == ("", "no held-out sample has the region")


def write_previews(run: Path, before: int, after: int) -> None:
    """A photo with a striped face, and previews with weaker or stronger stripes; 40 levels are the photo's."""
    (run / "previews").mkdir(parents=True)
    for name, contrast in (("photo", 40), ("before", before), ("after", after)):
        pixels = np.full((32, 48, 3), 100, dtype=np.uint8)
        pixels[8:16, 4:20:4] += contrast
        Image.fromarray(pixels).save(run / "previews" / f"{name}.png")
    steps = {"0": {"photo": "previews/before.png"}, "9": {"photo": "previews/after.png"}}
    row = {"caption": "a face", "seed": 1, "photo": "previews/photo.png", "steps": steps}
    row["boxes"] = {"face": [[4, 8, 20, 16], [30, 2, 31, 3]], "shoes": [], "hand": [[3, 3, 4, 9]]}
    (run / "previews" / "index.json").write_text(json.dumps({"rows": [row]}))


def test_closeness_is_that_of_the_largest_box(tmp_path: Path) -> None:
    write_previews(tmp_path, before=10, after=20)
    ((row,), steps) = read_previews(tmp_path)
    assert steps == (0, 9)
    half = 0.5  # root of the quarter of the pixels that differ
    assert row.closeness["face"] == Closeness(30 * half, 20 * half, 10 * half, 0.25, 0.5)
    share = (8 * 16 / (32 * 48)) ** 0.5
    assert row.closeness["global"].before == pytest.approx(30 * half * share)
    assert row.closeness.keys() == {"global", "face"}  # no shoes, and a hand of one pixel's width has no gradient
    assert [zoom.region for zoom in row.photo.zooms] == ["face", "shoes", "hand"]


def test_what_is_the_same_for_several_objectives_is_said_once() -> None:
    said = [("", "whole picture: no verdict."), ("good", "face: fell."), ("", "hand: no verdict.")]
    assert joined(said) == [("", "whole picture and hand: no verdict."), ("good", "face: fell.")]


def write_validation(run: Path, pictures: int, face: float) -> None:
    """Losses before and after, in which the face's changes by a factor on every picture."""
    areas, keys = [10.0] * pictures, [f"p{i}" for i in range(pictures)]
    errors = np.linspace(1.0, 2.0, pictures)
    lines = [
        {"step": step, "keys": keys, "objectives": {"face": {"error": list(errors * factor), "area": areas}}}
        for step, factor in ((0, 1.0), (9, face))
    ]
    (run / "validation.jsonl").write_text("\n".join(map(json.dumps, lines)))


@pytest.mark.parametrize(
    ("after", "pictures", "said"),
    [
        (
            30,
            30,
            "Face: the held-out loss fell by 10.0 %: the preview went from 50 % to 75 % of its photo&#39;s detail.",
        ),
        (
            10,
            30,
            "Face: the held-out loss fell by 10.0 %, but the pictures didn&#39;t follow: the preview went from 10.0 to",
        ),
        (30, 8, "Face: no verdict from 8 held-out pictures; it needs at least 20."),
    ],
)
def test_the_page_opens_with_the_sentence_and_the_pictures(
    tmp_path: Path, after: int, pictures: int, said: str
) -> None:
    write_previews(tmp_path, before=20, after=after)
    write_validation(tmp_path, pictures, face=0.9)
    page = write_training_report(tmp_path).read_text(encoding="utf-8")
    assert said in page
    assert page.index(said) < page.index("<img") < page.index('<dl class="facts">')


def write_metrics(run: Path, steps: int, **values: float) -> None:
    rows = [{"step": n, "images": 4 * n, "images_per_s": 2.0, **values} for n in range(1, steps + 1)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_cards_have_units_and_times(tmp_path: Path) -> None:
    write_metrics(tmp_path, 60)
    (tmp_path / "recipe.yaml").write_text("resolution: [96, 128]\nsteps: 90\ndata: [{path: a}, {path: b}]\n")
    (tmp_path / "summary.json").write_text(json.dumps({"peak_memory_mib": 2345, "cropped_share": 0.034}))
    page = write_training_report(tmp_path).read_text(encoding="utf-8")
    for name, value in {
        "resolution": "96 x 128 px (height x width)",
        "steps": "60 of 90",
        "data": "a, b",
        "training pictures seen": "240, 4 a step",
        "speed (median)": "2 pictures/s",
        "time in steps": "2 min",
        "time left": "about 60 s",
        "peak memory": "2,345 MiB",
        "area cropped away": "3.4 %",
    }.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page, name


def test_whole_faces_are_named_and_few_of_them_are_a_warning(tmp_path: Path) -> None:
    """As the data set has them, or else as the steps saw them."""
    write_metrics(tmp_path, 3, **{"whole/face": 0.28, "whole/hand": 0.95})
    page = write_training_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<dt>whole faces in view</dt><dd>28 %</dd>") == 1
    assert "Whole faces in view: 28 %, the crop cuts the others off." in page
    assert "<dt>whole hands in view</dt><dd>95 %</dd>" in page
    assert "Whole hands in view" not in page
    (tmp_path / "summary.json").write_text(json.dumps({"whole_faces_in_view": 0.999}))
    page = write_training_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<dt>whole faces in view</dt><dd>99 %</dd>") == 1
    assert page.count("<dt>whole faces in view</dt>") == 1
    assert "Whole faces in view" not in page


def test_starts_and_changed_settings_are_listed(tmp_path: Path) -> None:
    lines = ["12 photos, 120 with repeats", "column 'shoes' is not used"]
    starts = [
        {"step": 0, "date": "2026-01-01T00:00:00+00:00", "changed": {}},
        {"step": 40, "date": "2026-01-02T00:00:00+00:00", "changed": {"steps": [40, 60]}},
    ]
    (tmp_path / "summary.json").write_text(json.dumps({"starts": starts, "data_lines": lines, "processes": 1}))
    page = write_training_report(tmp_path).read_text(encoding="utf-8")
    assert "steps: 40 → 60" in page
    assert "2026-01-02" in page
    assert "<td>starts</td>" not in page
    assert "<li>12 photos, 120 with repeats</li>" in page
