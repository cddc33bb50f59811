"""The folder of a training run as the trainer leaves it, in a moment."""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

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
