"""Draw the pictures of docs/first-run.md from the run and the samples that its commands make.

.venv/bin/python docs/make_first_run.py runs/first samples
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from PIL import Image, ImageDraw, ImageFont

from fairhuman.report import plots
from fairhuman.report.changes import change, changes_figure, read_series
from fairhuman.report.run_folder import read_metrics

IMAGES = Path(__file__).parent / "images"
SIDE, GAP, HEAD = 172, 4, 24  # pixels: a panel, between panels, the line of titles
OVERLAY = 760  # pixels of the overlay sheet: its head and two lines of samples


def sheet(titles: Sequence[str], rows: Sequence[Sequence[Path]]) -> Image.Image:
    """Pictures in lines below their titles."""
    drawn = Image.new("RGB", (len(titles) * (SIDE + GAP) - GAP, HEAD + len(rows) * (SIDE + GAP) - GAP), "white")
    font = ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", 13)
    for column, title in enumerate(titles):
        ImageDraw.Draw(drawn).text((column * (SIDE + GAP), 4), title, font=font, fill="#333333")
        for line, row in enumerate(rows):
            with Image.open(row[column]) as file:
                panel = file.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            drawn.paste(panel, (column * (SIDE + GAP), HEAD + line * (SIDE + GAP)))
    return drawn


def previews(run: Path) -> Image.Image:
    """All preview rows: held-out picture, denoised before and after, drawn from its caption before and after."""
    entries = json.loads((run / "previews" / "index.json").read_text(encoding="utf-8"))["rows"]
    rows = []
    for entry in entries:
        first, last = (entry["steps"][step] for step in sorted(entry["steps"], key=int)[:: len(entry["steps"]) - 1])
        names = [entry["photo"], first["photo"], last["photo"], first["caption"], last["caption"]]
        rows.append([run / name for name in names])
    return sheet(["held out", "denoised: base", "after", "from caption: base", "after"], rows)


def main() -> None:
    """Write the pictures into docs/images."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("samples", type=Path)
    options = parser.parse_args()
    run, metrics = options.run, read_metrics(options.run)
    with Image.open(run / "overlay.png") as overlay:
        shown = overlay.convert("RGB").crop((0, 0, overlay.width, OVERLAY))
        shown.save(IMAGES / "first-overlay.jpg", quality=82, optimize=True)
    previews(run).save(IMAGES / "first-previews.jpg", quality=82, optimize=True)
    folders = [options.samples / name for name in ("base", "first")]
    columns = [sorted(folder.glob("*.png")) for folder in folders]
    titles = [f"prompt {number}" for number in range(1, len(columns[0]) + 1)]
    sheet(titles, columns).save(IMAGES / "first-samples.jpg", quality=82, optimize=True)
    series = read_series([run])
    changes = {"MPD": {name: change(series, name) for name in series.first}}
    figures = {
        "losses": plots.losses_figure(metrics),
        "weights": plots.weights_figure(metrics),
        "cosines": plots.cosines_figure(metrics),
        "changes": changes_figure(changes, stacked=True),
    }
    for name, figure in figures.items():
        figure.savefig(IMAGES / f"first-{name}.png", dpi=150)


if __name__ == "__main__":
    main()
