"""What training sees of photos: regions whole in view and area cropped away, with earlier and present view settings.

For the recipes on photos at 128, 512 and 1024 pixels, on the photos of all given data sets together. At 128 pixels the
model is the small SDXL, as SDXL itself isn't trained there. No picture is decoded. Takes a minute.

    .venv/bin/python benchmarks/views.py --ccp FOLDER --wholebody FOLDER [--quick]
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import arguments, save
from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.coverage import enlarged, view_coverage
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.samples.order import SourceShare
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.record import HumanRecord
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.views import training_order, training_transform

RECIPES = Path(__file__).parents[1] / "recipes"
# The view settings of each recipe before aspect-ratio buckets were the default.
BEFORE = {"lora-small": 0.0, "lora-sdxl": 0.0, "photos": 0.5}
NAMES = ("face", "hand")
SIZES = (128, 512, 1024)


def measure(recipe: TrainRecipe, records: Sequence[HumanRecord]) -> dict[str, Any]:
    """What a recipe shows of records."""
    order = training_order(recipe, [SourceShare(range(len(records)))], records)
    data = PeopleDataset(records, recipe.regions.names, training_transform(recipe), order=order)
    shown = data.resolutions_of_records()
    found = view_coverage(records, data.regions, data.transform, shown, recipe.seed, most=len(records))
    return {
        "whole": {name: round(one.whole, 4) for name, one in found.regions.items()},
        "in view": {name: round(one.in_view, 4) for name, one in found.regions.items()},
        "boxes": {name: one.boxes for name, one in found.regions.items()},
        "area lost": round(found.area_lost, 4),
        "enlarged": len(enlarged(records, shown)),
        "buckets": {f"{h} x {w}": count for (h, w), count in sorted(Counter(shown).items())},
    }


def main() -> None:
    """Measure every recipe at every size, before and after."""
    options = arguments(__doc__, ccp="the photos of Clothing Co-Parsing", wholebody="photos of COCO-WholeBody")
    settings, folders = SourceSettings(max_reject_share=1.0), [options.ccp, options.wholebody]
    records = [record for folder in folders if folder for record in read_source(folder, NAMES, settings, LoadReport())]
    if options.quick:
        records = records[:100]
    results: dict[str, Any] = {}
    for name, keep in BEFORE.items():
        for size in SIZES:
            chosen = ["data=photos", "out=run", f"resolution={size}", *(["model=small"] if size == SIZES[0] else [])]
            ways = {"before": ["view.bucket_aspect=null", f"view.keep_region={keep}"], "after": []}
            for way, more in ways.items():
                recipe = config.load(TrainRecipe, RECIPES / f"{name}.yaml", [*chosen, *more])
                found = results.setdefault(f"{name}, {size} px", {})[way] = measure(recipe, records)
                shares = "  ".join(f"{region} {share:.1%}" for region, share in found["whole"].items())
                print(f"{name:<12}{size:>6} px  {way:<8}whole: {shares}  area lost {found['area lost']:.1%}")
    save("views", {"pictures": len(records), "data": [one.name for one in folders if one]}, results, options)


if __name__ == "__main__":
    main()
