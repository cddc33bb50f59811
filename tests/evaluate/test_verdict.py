"""Verdicts say what the sample shows, and no more; pages and folders of evaluations lose nothing."""

import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fairhuman.errors import DataError
from fairhuman.evaluate.page import difference_text, forest, number_text
from fairhuman.evaluate.place import check_folder, default_folder
from fairhuman.evaluate.results import WHOLE, Contrast, EvaluationResults, Metric, MetricResult
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.evaluate.verdict import FEW, Verdict, contrast_mark, verdicts
from fairhuman.stats.paired import Difference, Measured
from helpers.official import HAS_MEDIAPIPE
from helpers.tiny_pictures import noise

Typed = Callable[..., tuple[int, str, str]]
FACES = Metric("strict face confidence", "higher", "", "", judges="faces")
PRECISION = Metric("face precision", "higher", "", "", judges="faces")
HANDS = Metric("best hand", "higher", "", "", judges="hands")
DISTANCE = Metric("distance", "lower", "", "", judges=WHOLE)
OFFICIAL = Metric("official face confidence", "higher", "", "", judges="")


def seen(
    metric: Metric, value: float, half: float, p: float, n: int = 100, prompts: int = 0, base: float = 0.8
) -> tuple[MetricResult, Contrast]:
    """A difference of `new` from `base`, whose value is `base`."""
    measured = Measured(value, value - half, value + half, n, half / 2, prompts or n)
    known = MetricResult(metric, "base", Measured(base, base, base, n))
    return known, Contrast(metric, "new", "base", Difference(measured, p, equal=value == half == 0))


def verdict_on(*found: tuple[MetricResult, Contrast]) -> Verdict:
    results, contrasts = zip(*found, strict=True)
    [verdict] = verdicts(EvaluationResults(list(results), list(contrasts)))
    return verdict


def test_a_verdict_names_every_subject_in_words() -> None:
    found = verdict_on(
        seen(FACES, 0.1, 0.03, 1e-4), seen(HANDS, 0.02, 0.1, 0.6), seen(DISTANCE, 0.4, 1.0, 0.5, base=50.0)
    )
    assert found.text == (
        f"new against base: faces better; {WHOLE} as close to the reference (within 5 %); hands can't be told apart "
        "with 100 pictures."
    )
    assert (found.mark, found.notes) == ("good", [])


def test_a_single_hand_has_no_interval_and_proves_no_equality() -> None:
    one = Measured(0.012, -0.02, 0.03, 48, 0.01, 48, informing=1)
    contrast = Contrast(HANDS, "new", "base", Difference(one, 0.7))
    assert "hands can't be told apart" in verdict_on((seen(HANDS, 0, 0, 1)[0], contrast)).text
    assert (difference_text(contrast), forest(contrast)) == ("+0.01, 1 prompt", None)
    assert number_text(HANDS, Measured(0.94049, 0.94049, 0.94049, 48, 0.0, 48, informing=1)) == "0.94, 1 prompt"


def test_pictures_of_a_prompt_are_not_counted_as_independent() -> None:
    found = verdict_on(seen(HANDS, 0.02, 0.1, 0.6, n=100, prompts=25))
    assert "hands can't be told apart with 100 pictures of 25 prompts" in found.text


@pytest.mark.parametrize(
    ("whole", "words", "mark"),
    [
        (seen(DISTANCE, 30.0, 9.0, 1e-6, base=50.0), f"{WHOLE} worse", "bad"),
        (seen(DISTANCE, 30.0, 40.0, 0.3, base=50.0), f"{WHOLE} can't be told apart with 100 pictures", ""),
        (seen(DISTANCE, -9.0, 4.0, 1e-5, base=50.0), f"faces and {WHOLE} better", "good"),
        (None, f"{WHOLE} not measured", ""),
    ],
)
def test_better_faces_are_no_good_news_where_the_picture_is_ruined(
    whole: tuple[MetricResult, Contrast] | None, words: str, mark: str
) -> None:
    found = verdict_on(seen(FACES, 0.1, 0.03, 1e-4), *([whole] if whole else []))
    assert words in found.text
    assert found.mark == mark


def test_a_small_sample_never_shows_that_nothing_changed() -> None:
    """The interval lies within the margin, but a bootstrap over few prompts is too narrow to be proof."""
    few, enough = (seen(FACES, 0.0, 0.01, 0.9, n=n) for n in (FEW - 1, FEW))
    assert "faces can't be told apart with 19 pictures" in verdict_on(few).text
    assert "faces unchanged" in verdict_on(enough).text
    wide = seen(FACES, 0.0, 0.05, 0.9, n=500)  # beyond 5 % of 0.8
    assert "can't be told apart with 500 pictures" in verdict_on(wide).text


def test_a_small_sample_says_what_it_would_take() -> None:
    found = verdict_on(*[seen(HANDS, 0.2, 0.1, 2 / 256, n=8)] * 10)
    assert "hands can't be told apart with 8 pictures" in found.text
    test, interval = found.notes
    assert "p = 0.0078, which is 0.078 after the correction for 10 differences" in test
    assert "at least 9 pictures" in test  # 10 * 2 / 2^9 < 0.05 <= 10 * 2 / 2^8
    assert "too narrow" in interval
    assert len(verdict_on(*[seen(HANDS, 0.2, 0.1, 0.02, n=9)] * 10).notes) == 1
    assert verdict_on(seen(HANDS, 0.0, 0.0, 1.0, n=8)).notes == [], "nothing is open where all is equal"


def test_a_distance_of_few_prompts_gives_no_verdict() -> None:
    found = verdict_on(seen(DISTANCE, 9.0, 1.0, math.nan, n=3, base=50.0))
    assert f"{WHOLE} can't be told apart with 3 pictures" in found.text
    assert found.notes[-1] == "Differences of distances are tested from 6 pictures on."
    assert "distances" not in "".join(verdict_on(seen(DISTANCE, 9.0, 9.0, 0.2, n=6, base=50.0)).notes)


def test_pictures_that_only_one_method_has_do_not_count() -> None:
    """A distance's groups are those of both methods together."""
    found = verdict_on(seen(DISTANCE, 0.1, 0.5, 0.9, n=8, prompts=32, base=50.0))
    assert f"{WHOLE} can't be told apart with 8 pictures." in found.text


def test_metrics_of_a_subject_that_disagree_are_named() -> None:
    found = verdict_on(seen(FACES, 0.1, 0.03, 1e-4), seen(PRECISION, -0.1, 0.03, 1e-4))
    assert "faces better in one respect and worse in another" in found.text
    assert "(strict face confidence better, face precision worse)" in found.text
    assert found.mark == "bad"


@pytest.mark.parametrize("half", [0.3, 0.01])
def test_the_metrics_in_which_a_subject_is_better_are_named(half: float) -> None:
    """Whether the others are undecided or unchanged; one without a value is not named."""
    rate, best = (replace(FACES, name=name) for name in ("face detection rate", "best face"))
    found = verdict_on(
        seen(FACES, 0.0, half, 0.9), seen(rate, 0.1, 0.03, 1e-4), seen(PRECISION, 0.0, half, 0.9),
        seen(best, math.nan, math.nan, math.nan),
    )  # fmt: skip
    words = "faces better in face detection rate (no difference shown in strict face confidence and face precision);"
    assert words in found.text
    assert "faces better;" in verdict_on(seen(FACES, 0.1, 0.03, 1e-4), seen(rate, 0.1, 0.03, 1e-4)).text
    assert "faces worse in" in verdict_on(seen(FACES, 0.0, half, 0.9), seen(rate, -0.1, 0.03, 1e-4)).text


def test_official_confidences_judge_only_where_there_is_nothing_else() -> None:
    official = seen(OFFICIAL, 0.1, 0.03, 1e-4)
    assert "official" not in verdict_on(official, seen(FACES, 0.0, 0.3, 0.9)).text
    assert "official face confidence better" in verdict_on(official).text


def test_pairs_that_are_all_equal_are_said_to_be() -> None:
    found = seen(FACES, 0.0, 0.0, 1.0, n=8)
    assert "faces the same, 8 pairs, all equal" in verdict_on(found).text
    assert difference_text(found[1]) == "8 pairs, all equal"
    assert forest(found[1]) is None
    assert contrast_mark(found[1]) == ""


def test_nothing_to_measure_is_no_number() -> None:
    none = seen(HANDS, math.nan, math.nan, math.nan)
    assert "hands with nothing to measure" in verdict_on(none).text
    assert difference_text(none[1]) == "nothing to measure"
    assert forest(none[1]) is None
    assert number_text(HANDS, Measured(3.25, math.nan, math.nan, 1)) == "3.25"


def test_the_better_end_of_a_plot_is_on_the_right() -> None:
    assert forest(seen(FACES, 0.1, 0.1, 0.05)[1]) == (0.0, 0.5, 1.0)
    assert forest(seen(DISTANCE, 0.1, 0.1, 0.05)[1]) == (-1.0, -0.5, 0.0)


def identity(*names: str, **settings: object) -> dict[str, object]:
    dumped = EvaluateSettings(**settings).model_dump(mode="json")  # type: ignore[arg-type]
    return {"sources": {name: name for name in names}, "reference": None, "settings": dumped}


def test_another_evaluation_is_never_written_over(tmp_path: Path) -> None:
    wanted, first = tmp_path / "base-evaluation", identity("base", "a")
    assert default_folder(wanted, first) == wanted
    wanted.mkdir()
    (wanted / "metrics.json").write_text(json.dumps(first))
    assert default_folder(wanted, first) == wanted, "the same again resumes"
    assert default_folder(wanted, identity("base", "a", workers=7)) == wanted, "no other numbers"
    second = identity("base", "b")
    beside = default_folder(wanted, second)
    assert beside == tmp_path / "base-evaluation-2"
    beside.mkdir()
    (beside / "metrics.json").write_text(json.dumps(second))
    assert default_folder(wanted, second) == beside
    assert default_folder(wanted, identity("base", "a", metrics=["fid"])).name == "base-evaluation-3"
    check_folder(wanted, first)
    with pytest.raises(
        DataError, match=r"base-evaluation: holds another evaluation \(sources .*'a'.*give another --out"
    ):
        check_folder(wanted, second)
    other = tmp_path / "of-a-study"
    other.mkdir()
    (other / "report.html").write_text("a study's")
    with pytest.raises(DataError, match=r"of-a-study: holds another evaluation \(a report.html without numbers of one"):
        check_folder(other, first)
    (wanted / "metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics.json can't be read"):
        check_folder(wanted, first)


def test_eight_equal_pictures_have_no_nan_and_two_pages_are_both_kept(tmp_path: Path, typed: Typed) -> None:
    for first, name in ((0, "base"), (100, "other")):
        (tmp_path / name).mkdir()
        for number in range(8):
            noise(64, 48, 20 + 10 * number, first + number).convert("RGB").save(tmp_path / name / f"{number}.png")
    shutil.copytree(tmp_path / "base", tmp_path / "same")
    common = (
        "--cache",
        tmp_path / "cache",
        "--reference",
        tmp_path / "base",
        f"metrics=[strict, {'official, ' if HAS_MEDIAPIPE else ''}efficientnet]",
    )
    code, said, wrong = typed(
        "evaluate", tmp_path / "base", "--method", tmp_path / "same", *common, "expected.face=1", "upscale=1"
    )
    assert code == 0, wrong
    first = tmp_path / "base-evaluation" / "report.html"
    page = first.read_text(encoding="utf-8")
    assert f"same against base: faces, hands and {WHOLE} the same, 8 pairs, all equal." in " ".join(said.split())
    assert "8 pairs, all equal" in page
    assert not re.search(r"\bnan\b", re.sub(r"data:image[^\"]*", "", page) + said, re.IGNORECASE)
    code, said, wrong = typed("evaluate", tmp_path / "base", "--method", tmp_path / "other", *common, "upscale=1")
    assert code == 0, wrong
    assert "base-evaluation holds another evaluation; this one goes into" in said
    assert first.read_text(encoding="utf-8") == page
    assert (tmp_path / "base-evaluation-2" / "report.html").is_file()
