"""The first day with one's own photos: what every row of the list must come to, and which test says so.

The list is `shared/docs/first-day.md` beside the checkout: what new users met, row by row. A row is tested by a
function `test_row_NN_...` here, or by the tests that `ELSEWHERE` names.
"""

import ast
import re
from collections.abc import Callable
from pathlib import Path

from helpers.places import ROOT

Typed = Callable[..., tuple[int, str, str]]
LIST = ROOT.parent / "shared" / "docs" / "first-day.md"
PIPELINE = "data/pipeline/test_run.py"
ELSEWHERE: dict[int, tuple[str, ...]] = {
    8: (f"{PIPELINE}::test_own_regions_come_through_the_build_and_every_export",),
    9: (f"{PIPELINE}::test_a_size_that_no_picture_has_is_refused_before_anything_is_done",),
    10: ("data/validation/test_validation.py::test_too_few_usable_pictures_are_an_error_that_says_why",),
    19: ("evaluate/test_verdict.py::test_eight_equal_pictures_have_no_nan_and_two_pages_are_both_kept",),
    20: ("evaluate/test_verdict.py::test_eight_equal_pictures_have_no_nan_and_two_pages_are_both_kept",),
    21: (f"{PIPELINE}::test_a_caption_that_the_build_writes_is_missed_by_nobody",),
    22: (f"{PIPELINE}::test_refusals",),
    23: ("data/sources/test_formats.py::test_what_is_no_data_set_is_named_in_a_line",),
}


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_row_has_a_test() -> None:
    here = {int(found.group(1)) for name in functions(Path(__file__)) if (found := re.match(r"test_row_(\d\d)_", name))}
    assert not here & ELSEWHERE.keys()
    assert here | ELSEWHERE.keys() == set(range(1, 25))
    for tests in ELSEWHERE.values():
        for test in tests:
            file, _, name = test.partition("::")
            assert name in functions(ROOT / "tests" / file), test
    if LIST.is_file():
        assert set(re.findall(r"^\| (\d+) \|", LIST.read_text(encoding="utf-8"), flags=re.M)) == {
            str(row) for row in range(1, 25)
        }
