"""The page of a run: complete, self-contained, escaped, and honest about what is missing."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from fairhuman.report.training import write_training_report

SIDE = 128
FACE, HAND = (52, 18, 76, 46), (88, 70, 100, 84)
NASTY = 'a person <script>alert("x")</script> in a "red" coat & <img src=https://example.org/a.png>'


def person(generator: np.random.Generator, noise: float) -> Image.Image:
    """A simple figure with a face and a hand at known places, under some noise."""
    picture = Image.new("RGB", (SIDE, SIDE), tuple(int(v) for v in generator.integers(120, 220, 3)))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((44, 46, 84, 128), fill=tuple(int(v) for v in generator.integers(20, 160, 3)))
    draw.ellipse(FACE, fill=(225, 180, 150))
    draw.line((80, 54, 94, 74), fill=(60, 60, 90), width=8)
    draw.ellipse(HAND, fill=(225, 180, 150))
    pixels = np.asarray(picture) + noise * generator.normal(size=(SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_metrics(run: Path, steps: int, generator: np.random.Generator) -> None:
    lines = []
    for step in range(1, steps + 1):
        fade = np.exp(-2 * step / steps)
        hand = generator.random() < 0.7
        weights = generator.gamma(6.0, 1.0, 3) * [0.4, 1.0, 1.6 * hand]
        weights *= 3 / weights.sum()
        row: dict[str, object] = {"step": step, "images": 4 * step, "lr": 1e-4 * min(1, step / 20)}
        row |= {"grad_norm": 1.0, "images_per_s": 3 + generator.random(), "skipped": step == 7}
        for i, (name, level) in enumerate({"global": 0.3, "face": 0.5, "hand": 0.8}.items()):
            present = name != "hand" or hand
            row[f"loss/{name}"] = level * (0.4 + fade) * generator.gamma(8, 1 / 8) if present else None
            row[f"weight/{name}"] = weights[i]
        for pair, mean in {"global-face": 0.15, "global-hand": 0.12, "face-hand": 0.04}.items():
            row[f"cos/{pair}"] = mean + 0.1 * generator.normal() if hand or "hand" not in pair else None
        row |= {"area/face": 0.011, "area/hand": 0.004 * hand, "coverage/face": 0.9, "coverage/hand": 0.6 * hand}
        row |= {"known/face": 0.95, "known/hand": 0.7}
        lines.append(json.dumps(row))
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def write_validation(run: Path, steps: int, generator: np.random.Generator) -> None:
    n = 60
    areas = {"global": np.full(n, 4096.0), "face": generator.gamma(3, 15, n), "hand": generator.gamma(2, 8, n)}
    areas["hand"][::3] = 0
    difficulty, lines = generator.gamma(4, 0.25, n), []
    for step in np.linspace(0, steps, 5).astype(int):
        lower = 1 - 0.3 * step / steps
        objectives = {
            name: {"error": list(a * difficulty * lower * generator.gamma(99, 1 / 99, n)), "area": list(a)}
            for name, a in areas.items()
        }
        lines.append(json.dumps({"step": int(step), "keys": list(range(n)), "objectives": objectives}))
    (run / "validation.jsonl").write_text("\n".join(lines) + "\n")


def write_previews(run: Path, steps: int, generator: np.random.Generator) -> None:
    rows = []
    for i, caption in enumerate(["a person wearing a black vest and a white blouse", NASTY, "ein Mensch, lächelnd ☺"]):
        row = {"caption": caption, "seed": 100 + i, "photo": f"previews/photo-{i:02}.png", "steps": {}}
        row["boxes"] = {"face": [list(FACE)], "hand": [list(HAND)] if i != 2 else None}
        (run / "previews").mkdir(exist_ok=True)
        person(generator, 4).save(run / row["photo"])
        for step, noise in ((0, 60), (steps // 2, 40), (steps, 12)):
            folder = f"previews/step-{step:06}"
            (run / folder).mkdir(exist_ok=True)
            shots = {kind: f"{folder}/row-{i:02}-{kind}.png" for kind in ("caption", "photo")}
            for shot in shots.values():
                person(generator, noise).save(run / shot)
            row["steps"][str(step)] = shots
        rows.append(row)
    (run / "previews" / "index.json").write_text(json.dumps({"rows": rows}))


def make_run(run: Path, steps: int = 200) -> Path:
    """A run's folder as the trainer leaves it."""
    generator = np.random.default_rng(0)
    run.mkdir(parents=True, exist_ok=True)
    recipe = "model: small\ndata: photos\nstrategy: mpd\nsteps: 200\nbatch_size: 4\nresolution: 128\n"
    (run / "recipe.yaml").write_text(recipe + "learning_rate: 0.0001\nseed: 0\nlora:\n  rank: 16\n")
    write_metrics(run, steps, generator)
    write_validation(run, steps, generator)
    write_previews(run, steps, generator)
    Image.new("RGB", (640, 300), "#88AACC").save(run / "overlay.png")
    counts = {"skipped": {"truncated <b>file</b>": 3}, "dropped": {"box of no width": 12}}
    (run / "data_report.json").write_text(json.dumps({"counts": counts}))
    summary = {"machine": "2 cores", "wall time": "3 min", "versions": {"torch": "2.14.1"}}
    (run / "summary.json").write_text(json.dumps(summary))
    return run


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
    changes = re.findall(r"(-\d+\.\d)% \[(-\d+\.\d)%, (-\d+\.\d)%\]", page.text)
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


def test_empty_folder_and_single_evaluation_give_a_page(tmp_path: Path) -> None:
    page = Page(write_training_report(tmp_path).read_text(encoding="utf-8"))
    assert page.text.count("is missing") == 6
    objectives = {"global": {"error": [1.0, 2.0], "area": [1.0, 1.0]}, "hand": {"error": [0, 0], "area": [0, None]}}
    line = {"step": 0, "keys": ["a", "b"], "objectives": objectives}
    (tmp_path / "validation.jsonl").write_text(json.dumps(line))
    page = Page(write_training_report(tmp_path).read_text(encoding="utf-8"))
    assert "no second evaluation of the same samples" in page.text


def test_other_samples_are_not_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=20)
    lines = (run / "validation.jsonl").read_text().splitlines()
    last = json.loads(lines[-1]) | {"keys": list(range(100, 160))}
    (run / "validation.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last)]))
    page = Page(write_training_report(run).read_text(encoding="utf-8"))
    assert page.text.count("no second evaluation of the same samples") == 3
