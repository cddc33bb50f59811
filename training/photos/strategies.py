"""Run the same short LoRA training with every strategy and plot all runs in docs/images/strategies.png.

    python training/photos/strategies.py --data PHOTOS --model runs/photos/model --out runs/strategies

Small-scale: it shows how weights, cosines and losses behave, not which strategy is best. Resumable.
"""

import argparse
from pathlib import Path

from fairhuman import config
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.watch import ProgressBar, report
from fairhuman.report.plots import strategies_figure
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe

ROOT = Path(__file__).parents[2]
STRATEGIES = ("ls", "dwa", "uw", "rlw", "si", "nash", "mpd")


def main() -> None:
    """Train, then plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "strategies.png")
    args = parser.parse_args()
    runs = {}
    for strategy in STRATEGIES:
        runs[strategy] = args.out / strategy
        overrides = [
            f"data={args.data}",
            f"model={args.model}",
            f"out={runs[strategy]}",
            f"steps={args.steps}",
            f"strategy={strategy}",
            f"validation.every={args.steps}",
            "preview.count=0",
            "fairness.mode=exact",
            "fairness.measure_every=5",
            "fairness.dwa_window=10",
        ]
        recipe = config.load(TrainRecipe, ROOT / "recipes" / "photos-lora.yaml", overrides)
        with ConsoleDisplay() as display:
            run = train(recipe, [ProgressBar(display)])
        report(run, display)
        if not run.finished:
            return
    args.figure.parent.mkdir(parents=True, exist_ok=True)
    strategies_figure(runs).savefig(args.figure, dpi=110)
    print(args.figure)


if __name__ == "__main__":
    main()
