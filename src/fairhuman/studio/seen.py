"""A picture as training sees it: the crop with its masks, and the masks on the latent grid."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fairhuman.bases.names import latent_shape
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.errors import FairHumanError
from fairhuman.models.locations import location_of
from fairhuman.record import HumanRecord
from fairhuman.regions.objectives import objective_masks
from fairhuman.regions.settings import GLOBAL
from fairhuman.report.overlay import sample_lines, sample_panels
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import recipe_of_run
from fairhuman.train.views import training_transform

FACTOR = 8  # pixels a latent cell and side, of SDXL and of other bases that are published
SIDE = 420  # pixels of a panel
GAP = 8
DEFAULT = "SDXL"  # the settings that `fairhuman train` has by default


@dataclass(frozen=True)
class Seen:
    """Both panels side by side, a line per region, and what happens to the picture's size; empty: nothing of note."""

    picture: Image.Image
    lines: list[str]
    size: str


def recipe_like(run: Path | None) -> TrainRecipe:
    """The settings of a run; None: those that a run has by default.

    Raises:
        RecipeError: those of the run can't be read.
    """
    if run is not None:
        return recipe_of_run(run)
    return TrainRecipe.model_validate({"model": DEFAULT, "data": ".", "out": ".", "steps": 1})


def seen(record: HumanRecord, regions: tuple[str, ...], recipe: TrainRecipe, draw: int) -> Seen:
    """The `draw`-th sample of a record by a recipe's view, with the regions of the recipe first, then `regions`.

    Raises:
        DataError: the picture can't be decoded.
    """
    names = tuple(dict.fromkeys(name for name in (*recipe.regions.names, *regions) if name != GLOBAL))
    dataset = PeopleDataset(
        [record],
        names,
        training_transform(recipe),
        recipe.regions.mask,
        seed=recipe.seed,
        limits=recipe.source.limits,
        ignored=recipe.regions.ignored,
        min_in_view=recipe.view.min_in_view,
    )
    sample = dataset[draw]
    if sample.picture_chw is None:
        raise FairHumanError("the sample has no picture")
    ignored_bhw = None if sample.ignored_hw is None else sample.ignored_hw[None]
    latent_rhw = objective_masks(sample.masks_rhw[None], _factor(recipe.model), ignored_bhw)[0, 1:]
    panels = sample_panels(sample.picture_chw, sample.masks_rhw, latent_rhw, names, sample.ignored_hw, SIDE)
    both = Image.new("RGB", (panels[0].width + GAP + panels[1].width, panels[0].height))
    both.paste(panels[0], (0, 0))
    both.paste(panels[1], (panels[0].width + GAP, 0))
    lines = sample_lines(names, sample.masks_rhw, latent_rhw, sample.known_r)
    for r, name in enumerate(names):
        if record.annotated(name) and not sample.known_r[r]:
            share = f"{100 * recipe.view.min_in_view:.3g} %"
            lines[r] = f"{name}: less than {share} of it is in this crop, so it counts as not annotated"
    return Seen(both, lines, _enlarged(record, recipe))


def _factor(model: str) -> int:
    """Pixels a latent cell and side of a model, by its folder; `FACTOR` where that isn't on this machine."""
    try:
        return latent_shape(Path(location_of(model)))[0]
    except (OSError, ValueError, KeyError):
        return FACTOR


def _enlarged(record: HumanRecord, recipe: TrainRecipe) -> str:
    height, width = recipe.size
    scale = max(height / record.height, width / record.width) * recipe.view.zoom[0]
    if scale <= 1.0:
        return ""
    return f"enlarged {scale:.2g} times: the picture has {record.width} × {record.height}, training {width} × {height}"
