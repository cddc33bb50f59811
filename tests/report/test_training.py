"""The page of a run: complete, self-contained, escaped, and honest about what is missing."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fairhuman.report.training import write_training_report
from helpers.run_folder import NASTY, make_run


class Page(HTMLParser):
    """Collects tags and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_report_is_one_escaped_file_without_requests(tmp_path: Path) -> None:
    path = write_training_report(make_run(tmp_path / "run"))
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path == tmp_path / "run" / "report.html"
    assert not {"script", "link", "iframe", "b2"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            if name in attributes:
                assert (attributes[name] or "").startswith(("data:image/", "#")), (tag, attributes[name])
    assert NASTY in page.text  # shown as text, so it was escaped exactly once
    assert "truncated <b>file</b>" in page.text
    assert "lächelnd ☺" in page.text
    assert len(text) < 3_000_000
    assert list(path.parent.glob(".report*")) == []


def test_every_embedded_picture_decodes_and_no_figure_asks_for_anything(tmp_path: Path) -> None:
    text = write_training_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    jpegs = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    figures = re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", text)
    # photo, before, after with zooms (the third row has no hand box), two drawn each, and the overlay sheet
    assert len(jpegs) == 2 * 9 + 6 + 3 * 2 + 1
    assert all(base64.b64decode(jpeg).startswith(b"\xff\xd8") for jpeg in jpegs)
    assert len(figures) == 6
    for figure in figures:
        assert not re.search(rb'href="(?!data:|#)', base64.b64decode(figure))


def test_table_holds_the_paired_change(tmp_path: Path) -> None:
    page = Page(write_training_report(make_run(tmp_path / "run")).read_text(encoding="utf-8"))
    changes = re.findall(r"(-\d+\.?\d*) % \[(-\d+\.?\d*), (-\d+\.?\d*)\]", page.text)
    assert len(changes) == 3
    for value, low, high in changes:
        assert float(low) < -30 + 4
        assert float(low) <= float(value) <= float(high) < -20
    assert page.text.count("lower") >= 3


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("metrics.jsonl", "No curves"),
        ("validation.jsonl", "No held-out losses"),
        ("previews/index.json", "No previews"),
        ("summary.json", "Settings"),
    ],
)
def test_missing_file_is_said_and_the_rest_goes_on(tmp_path: Path, gone: str, said: str) -> None:
    run = make_run(tmp_path / "run", steps=20)
    (run / gone).unlink()
    page = Page(write_training_report(run).read_text(encoding="utf-8"))
    assert said in page.text
    assert "What the model sees" in page.text


def test_a_stopped_run_and_one_without_previews_say_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=20)
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    whole = re.sub(r"(?m)^steps: \d+", "steps: 20", recipe)
    (run / "recipe.yaml").write_text(whole, encoding="utf-8")
    (run / "summary.json").write_text('{"date": "2026-11-29T02:00:00+00:00"}', encoding="utf-8")
    text = Page(write_training_report(run).read_text(encoding="utf-8")).text
    assert "stopped" not in text
    assert "finished (UTC)" in text
    changed = whole.replace("steps: 20", "steps: 40", 1) + "preview: {count: 0}\n"
    (run / "recipe.yaml").write_text(changed, encoding="utf-8")
    (run / "previews" / "index.json").unlink()
    text = Page(write_training_report(run).read_text(encoding="utf-8")).text
    assert "Run run, stopped at step 20 of 40" in text
    assert "last started (UTC)" in text
    assert "the run was told to draw none, by preview.count=0" in text


def test_empty_folder_and_single_evaluation_give_a_page(tmp_path: Path) -> None:
    page = Page(write_training_report(tmp_path).read_text(encoding="utf-8"))
    assert page.text.count("is missing") == 6
    objectives = {"global": {"error": [1.0, 2.0], "area": [1.0, 1.0]}, "hand": {"error": [0, 0], "area": [0, None]}}
    line = {"step": 0, "keys": ["a", "b"], "objectives": objectives}
    (tmp_path / "validation.jsonl").write_text(json.dumps(line))
    page = Page(write_training_report(tmp_path).read_text(encoding="utf-8"))
    assert "no second evaluation of the same samples" in page.text
    assert page.text.count("step 0") == 1, "not held against itself"


def test_other_samples_are_not_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=20)
    lines = (run / "validation.jsonl").read_text().splitlines()
    last = json.loads(lines[-1]) | {"keys": list(range(100, 160))}
    (run / "validation.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]))
    page = Page(write_training_report(run).read_text(encoding="utf-8"))
    assert page.text.count("no second evaluation of the same samples") == 3
