"""Regions beyond face and hand: how well parts of the body are found, who decides among five objectives, the prior.

    .venv/bin/python benchmarks/regions.py [--quick] [--parts parts pairs shares prior] [--work FOLDER]

`parts`: the parts that the bundled models find, on 32 synthetic people of 512 px, half of them from head to foot,
against their rendered masks. Pixels are pooled over pictures, with bootstrap intervals over pictures: precision is
the share of the pixels found that are the part's, recall the share of the part's pixels that are found. `found` is
the share of pictures that show at least 0.02 % of the part in which it is found.

`pairs`: the same on 16 pictures of two of these people beside each other, and the share of persons that are found.

`shares`: the small SDXL, LoRA of rank 16, 128 px, batches of 8 of 64 people from head to foot, 30 steps of the
objectives global, face, hand, eyes and feet; medians over the last 15 steps of each objective's share of the direction
and of its rate, the cosine of its gradient and the direction, under MPD and under the plain sum (LS).

`prior`: the CPU time of a step with `regions.prior` over that without, and after 30 steps of each the losses of
further pictures with the same noise, and the drift outside of the regions, the mean of (ε - ε_0)².

All four take about ten minutes on one core.
"""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from amortised import adam, take_steps, training
from common import arguments, compare, one_thread, save
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.detect.body_parts import BodyParts
from fairhuman.fairness import FairBackward, LinearScalarization, MinimumPotentialDelay
from fairhuman.regions.settings import RegionSettings
from fairhuman.stats.bootstrap import pooled_ratio
from fairhuman.synth.body import Body
from fairhuman.synth.render import render
from fairhuman.synth.run import render_people
from fairhuman.synth.settings import Framing, SynthSettings
from fairhuman.train.step import Objectives, fair_step

FRAMINGS: tuple[Framing, ...] = ("half_body", "full_body")
PARTS = ("head", "upper_body", "legs", "feet", "eyes", "mouth", "left_hand", "right_hand")
FIVE = ("face", "hand", "eyes", "feet")
SEED, SIZE, SHOWN = 909, 512, 2e-4
BATCH_SIZE, LEARNING_RATE = 8, 3e-4
STRATEGIES = {"LS": LinearScalarization, "MPD": MinimumPotentialDelay}


def parts(count: int, together: int = 1) -> dict[str, Any]:
    """Precision and recall of each part, in pictures of some people beside each other."""
    body = Body()
    rows: dict[str, list[tuple[int, int, int]]] = {part: [] for part in PARTS}  # pixels in both, found, true
    persons = 0
    with BodyParts() as finder:
        for number in range(0, count, together):
            people = [
                render(body, SEED, one, SIZE, framing=FRAMINGS[(one // together) % 2], parts=True)
                for one in range(number, number + together)
            ]
            found = finder.find(np.concatenate([one.image for one in people], axis=1))
            persons += max((region.searched or 0 for region in found.values()), default=0)
            for part in PARTS:
                true_hw = np.concatenate([one.masks[part] for one in people], axis=1) >= 128
                region = found.get(part)
                found_hw = np.zeros_like(true_hw) if region is None or region.mask_hw is None else region.mask_hw
                rows[part].append(tuple(int(one.sum()) for one in (true_hw & found_hw, found_hw, true_hw)))
    numbers = {part: part_numbers(np.array(of_part, dtype=float), together) for part, of_part in rows.items()}
    return {"persons": persons / count, **numbers}


def part_numbers(pixels_n3: np.ndarray, together: int) -> dict[str, Any]:
    """Of a part: pictures that show it, the share in which it is found, precision and recall with intervals."""
    both_n, found_n, true_n = pixels_n3.T
    shown_n = true_n >= SHOWN * SIZE * SIZE * together
    precision, recall = (pooled_ratio(both_n, of_n) for of_n in (found_n, true_n))
    return {
        "pictures": int(shown_n.sum()),
        "found": float((found_n[shown_n] > 0).mean()),
        **{name: [one.value, one.low, one.high] for name, one in (("precision", precision), ("recall", recall))},
    }


def shares(data: Path, steps: int, **values: Any) -> dict[str, Any]:
    """Medians over the second half of a run of five objectives, by strategy."""
    result = {}
    for name, strategy in STRATEGIES.items():
        model, objectives, batches = training(data, 0, batch_size=BATCH_SIZE, regions={"names": FIVE}, **values)
        fair, optimizer = FairBackward(model.trainable_parameters(), strategy()), adam(model, LEARNING_RATE)
        seen = []
        for _ in range(steps):
            step, areas_k = fair_step(objectives, fair, [next(batches)], measure=True)
            optimizer.step()
            optimizer.zero_grad()
            seen.append((step.shares, step.rates, areas_k / areas_k[0]))
        names = ("global", *FIVE)
        result[name] = {
            what: {
                one: median(float(row[place][k]) for row in seen[steps // 2 :] if row[place] is not None)
                for k, one in enumerate(names)
            }
            for place, what in enumerate(("share", "rate", "area"))
        }
    return result


def prior(data: Path, steps: int, repeats: int, **values: Any) -> dict[str, Any]:
    """What the prior costs, and what it holds."""
    price, held = {}, {}
    for name, strategy in STRATEGIES.items():
        ways, ends = {}, {}
        for with_prior in (False, True):
            regions = {"prior": with_prior}
            model, objectives, batches = training(data, 0, batch_size=BATCH_SIZE, regions=regions, **values)
            fair = FairBackward(model.trainable_parameters(), strategy())
            take_steps(objectives, fair, batches, adam(model, LEARNING_RATE), steps)
            label = "with the prior" if with_prior else "without"
            ends[label] = _ends(objectives, data, **values)
            batch = next(batches)

            def step(objectives: Objectives = objectives, fair: FairBackward = fair, batch: Any = batch) -> None:
                fair_step(objectives, fair, [batch])

            ways[label] = step
        price[name] = compare(ways, "without", repeats)["with the prior"]["ratio"]
        held[name] = ends
    return {"price": price, "after": held}


def _ends(objectives: Objectives, data: Path, batches_n: int = 8, **values: Any) -> dict[str, float]:
    """Losses of further pictures, with the prior's whether it was trained or not."""
    measured = Objectives(objectives.model, RegionSettings(prior=True), objectives.noise, seed=1)
    _, _, batches = training(data, 1, batch_size=BATCH_SIZE, **values)
    sums = torch.zeros(2, 4, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(batches_n):
            batch = next(batches)
            masks_bkhw, draw = measured.masks_and_noise(batch)
            areas_k = measured.base.channels * masks_bkhw.sum(dim=(0, 2, 3))
            losses, _ = measured.losses(batch, masks_bkhw, draw, areas_k)
            sums[0] += torch.tensor([0.0 if one is None else float(one) for one in losses]) * areas_k
            sums[1] += areas_k
    return dict(zip(("global", "face", "hand", "drift outside"), (sums[0] / sums[1]).tolist(), strict=True))


def show(results: Mapping[str, Any]) -> None:
    """Print what was measured."""
    tables = [(name, dict(results[name])) for name in ("parts", "pairs") if name in results]
    for name, table in tables:
        print(f"{name}: persons {table.pop('persons'):.2f}")
    for part, row in (one for _, table in tables for one in table.items()):
        precision, recall = (f"{row[what][0]:.2f}" for what in ("precision", "recall"))
        print(
            f"{part:12}{row['pictures']:4} pictures  found {row['found']:.2f}  precision {precision}  recall {recall}"
        )
    for name, row in results.get("shares", {}).items():
        for what, values in row.items():
            print(f"{name:5}{what:6}" + "  ".join(f"{one} {value:.3f}" for one, value in values.items()))
    for name, ratio in results.get("prior", {}).get("price", {}).items():
        print(f"{name}: a step with the prior takes {ratio['median']:.2f} of one without")
        for label, row in results["prior"]["after"][name].items():
            print(f"  {label:16}" + "  ".join(f"{one} {value:.5f}" for one, value in row.items()))


def main() -> None:
    """Measure the parts that are asked for."""
    options = arguments(__doc__, ("parts", "pairs", "shares", "prior"), work="where people are rendered (runs/regions)")
    one_thread()
    quick: bool = options.quick
    work = (options.work or Path("runs/regions")) / ("quick" if quick else "full")
    values = {"resolution": 64} if quick else {}
    count, size, steps = (4, 64, 4) if quick else (64, 256, 30)
    if {"shares", "prior"} & set(options.parts):
        settings = SynthSettings(count=count, size=size, seed=62, framing="full_body", parts=True)
        render_people(work / "people", settings, ConsoleDisplay())
    results: dict[str, Any] = {}
    if "parts" in options.parts:
        results["parts"] = parts(2 if quick else 32)
    if "pairs" in options.parts:
        results["pairs"] = parts(2 if quick else 32, together=2)
    if "shares" in options.parts:
        results["shares"] = shares(work / "people", steps, **values)
    if "prior" in options.parts:
        results["prior"] = prior(work / "people", steps, 1 if quick else 5, **values)
    show(results)
    save("regions", {"size": SIZE, "steps": steps, "batch_size": BATCH_SIZE}, results, options)


if __name__ == "__main__":
    main()
