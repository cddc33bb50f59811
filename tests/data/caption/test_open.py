import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest

from fairhuman.config import build
from fairhuman.data.caption import CAPTIONERS, open_captioner
from fairhuman.data.caption.item import Caption, CaptionItem
from fairhuman.data.caption.settings import CaptionSettings
from fairhuman.data.caption.text import TextCaptioner
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError, RecipeError

Items = Callable[..., CaptionItem]


def test_every_kind_has_a_captioner() -> None:
    kinds = CaptionSettings.model_fields["kind"].annotation.__args__
    assert set(CAPTIONERS) == set(kinds)


@pytest.mark.parametrize("kind", ["template", "text"])
def test_kinds_without_a_model_open_with_their_name(kind: str, item: Items) -> None:
    with open_captioner(CaptionSettings(kind=kind)) as captioner:
        assert captioner.name == kind
        assert captioner.caption([item(0, "A hat.")]) == [Caption("A hat.", (5, 5))]
        assert captioner.caption([]) == []


def test_the_text_is_cleaned_and_an_empty_one_is_a_failure(budget: TokenBudget, item: Items) -> None:
    found = TextCaptioner(budget).caption([item(0, "\ta  hat\x00 "), item(1, " \u200b\n"), item(2, "a hat " * 99)])
    assert found[:2] == [Caption("a hat", (4, 4)), Failure("the source has no text")]
    assert isinstance(found[2], Caption)
    assert found[2].cut


def test_models_must_be_named_and_settings_known() -> None:
    with pytest.raises(RecipeError, match=r"kind transformers needs transformers\.model"):
        build(CaptionSettings, {"kind": "transformers"})
    with pytest.raises(RecipeError, match=r"kind endpoint needs endpoint\.model"):
        build(CaptionSettings, {"kind": "endpoint"})
    with pytest.raises(RecipeError, match=r"unknown setting 'endpoint\.time_out'; did you mean 'endpoint.timeout'"):
        build(CaptionSettings, {"endpoint": {"time_out": 3}})


def test_a_missing_key_is_reported_before_any_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    settings = build(CaptionSettings, {"kind": "endpoint", "endpoint": {"model": "m", "api_key_env": "NO_SUCH_KEY"}})
    with pytest.raises(DataError, match="NO_SUCH_KEY isn't set"), open_captioner(settings):
        pass


def test_it_can_be_opened_in_another_process(item: Items) -> None:
    start = pickle.loads(pickle.dumps(partial(open_captioner, CaptionSettings())))
    with start() as captioner:
        assert captioner.caption([item(gender="f")]) == [Caption("A woman.", (5, 5))]


def test_the_package_loads_nothing_heavy() -> None:
    heavy = "[name for name in ('torch', 'transformers', 'openai') if name in sys.modules]"
    code = f"import sys, fairhuman.data.caption; print({heavy})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
