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
ANSWERS, PIPELINE, TRAINERS = "cli/test_first_answers.py", "data/pipeline/test_run.py", "data/sources/test_trainers.py"
WHOLE = "train/test_views.py::test_recipes_on_photos_show_them_nearly_whole"
EQUAL = "evaluate/test_verdict.py::test_eight_equal_pictures_have_no_nan_and_two_pages_are_both_kept"
HUB = "cli/test_cli_models.py::test_the_hub_that_cannot_be_reached"
ELSEWHERE: dict[int, tuple[str, ...]] = {
    1: (WHOLE, "train/test_views.py::test_a_run_warns_where_regions_are_cut_and_names_the_setting"),
    2: (WHOLE,),
    3: ("models/test_single_file.py::test_a_single_file_gives_the_pictures_of_the_folder_without_the_network",),
    4: (f"{TRAINERS}::test_check_counts_photos",),
    5: (f"{TRAINERS}::test_each_is_read_as_it_is",),
    6: (f"{TRAINERS}::test_opacity_is_a_mask_where_asked",),
    7: (
        f"{TRAINERS}::test_unused_columns_are_named",
        "train/test_ignored.py::test_a_run_that_ignores_by_mask_box_and_rule",
    ),
    8: (f"{PIPELINE}::test_own_regions_come_through_the_build_and_every_export",),
    9: (f"{PIPELINE}::test_a_size_that_no_picture_has_is_refused_before_anything_is_done",),
    10: ("data/validation/test_validation.py::test_too_few_usable_pictures_are_an_error_that_says_why",),
    11: (
        f"{ANSWERS}::test_a_mistake_is_told_without_torch",
        "train/test_preflight.py::test_a_bare_folder_is_built_on_request",
    ),
    12: ("train/test_resume.py::test_all_settings_that_differ_are_listed_and_which_may",),
    13: ("models/test_lora_file.py::test_training_starts_from_a_file",),
    14: ("test_config.py::test_lists_of_plain_values_may_be_typed_without_brackets",),
    15: (f"{ANSWERS}::test_a_mistake_is_told_without_torch",),
    16: ("train/test_preflight.py::test_weights_of_the_hub_are_missing_without_a_network",),
    17: (HUB,),
    18: (HUB, "cli/test_cli_models.py::test_what_libraries_say_becomes_one_sentence"),
    19: (EQUAL,),
    20: (EQUAL,),
    21: (f"{PIPELINE}::test_a_caption_that_the_build_writes_is_missed_by_nobody",),
    22: (f"{PIPELINE}::test_refusals",),
    23: ("data/sources/test_formats.py::test_what_is_no_data_set_is_named_in_a_line",),
    24: ("cli/test_console.py::test_the_times_of_a_long_run_survive_80_columns",),
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
