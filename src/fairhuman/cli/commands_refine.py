"""What `fairhuman refine` does."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from fairhuman import config
from fairhuman.cli.commands_data import stages
from fairhuman.cli.console import say
from fairhuman.data.condition.depth_model import check_depth_model
from fairhuman.detect.model_file import find_model
from fairhuman.errors import RecipeError
from fairhuman.generate.guide import ActiveControl, ControlSpec
from fairhuman.generate.lora import check_lora_weight, find_lora, load_lora
from fairhuman.generate.sample import check_steps
from fairhuman.models.locations import check_location
from fairhuman.models.registry import CONTROLS, DTYPES
from fairhuman.models.sdxl import load_pipeline, networks, scheduler_config
from fairhuman.refine.conditions import CAPSULES
from fairhuman.refine.inpaint import Inpainter, Painter
from fairhuman.refine.page import summary, write_page
from fairhuman.refine.run import RefineManifest, check_folders, finished_rows, list_sources, refine_folder
from fairhuman.refine.settings import RefineSettings
from fairhuman.utils.files import read_prompts, writing


@dataclass(frozen=True)
class RefineJob:
    """What to refine, and into which folder."""

    images: Path
    out: Path
    prompts: Path | None
    recipe: Path | None


def run_refinement(
    job: RefineJob, values: dict[str, Any], overrides: Sequence[str], dry_run: bool, console: Console
) -> None:
    """Refine a folder; `values` are those settings that have options of their own, None where they weren't given."""
    settings = _settings(job.recipe, values, overrides)
    guides = _check(settings)
    sources = list_sources(job.images, read_prompts(job.prompts) if job.prompts is not None else None)
    started = RefineManifest(
        images=str(job.images), prompts=str(job.prompts) if job.prompts is not None else None, settings=settings
    )
    check_folders(job.images, job.out, started)
    left = len(sources) - len(finished_rows(job.out, sources))
    if dry_run:
        console.print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
        say(console, f"{left} of {len(sources)} pictures to look at; would write into {job.out}")
        return
    if 0 < left < len(sources):
        say(console, f"{job.out}: going on, {len(sources) - left} pictures are there")
    with writing(job.out), stages(console) as progress:
        done = refine_folder(sources, job.out, started, lambda: _painter(settings, guides), progress)
        page = write_page(job.out, sources, started, done)
    for line in summary(done):
        say(console, line)
    say(console, f"report: {page}")


def _settings(recipe: Path | None, values: dict[str, Any], overrides: Sequence[str]) -> RefineSettings:
    """Settings of the recipe, then the options, then the overrides."""
    given = {name: value for name, value in values.items() if value is not None}
    if recipe is not None:
        given = config.merge(config.load(RefineSettings, recipe).model_dump(mode="json"), given)
    return config.build(RefineSettings, given, overrides, origin="refine")


def _check(settings: RefineSettings) -> list[tuple[str, ControlSpec]]:
    """Check all that can be checked without loading the model; return the guides, unopened.

    Raises:
        RecipeError: too many steps, a weight that isn't finite, a model of depth that no guide follows.
        ModelError: no such model, LoRA, guide or model of depth.
        DetectorError: no such model of a hand's depth.

    """
    check_lora_weight(settings.lora_weight)
    if settings.lora is not None:
        find_lora(Path(settings.lora))
    check_location(settings.model)
    schedule = scheduler_config(settings.model)
    if schedule is not None:
        check_steps(schedule, settings.steps)
    if settings.hand_depth != CAPSULES:
        find_model(settings.hand_depth)
    if settings.depth is not None:
        check_depth_model(settings.depth)
    given = (("controlnet", settings.controlnets), ("t2i_adapter", settings.adapters))
    guides = [(kind, ControlSpec.parse(text)) for kind, texts in given for text in texts]
    for kind, named in guides:
        named.check(CONTROLS[kind])
    if settings.depth is not None or settings.hand_depth != CAPSULES:
        follows = [named.follows(CONTROLS[kind]) for kind, named in guides]
        if all(names is not None and "depth" not in names for names in follows):
            name = "hand_depth" if settings.depth is None else "depth.model"
            raise RecipeError(
                f"{name}: no guide follows depth; give one, as --controlnet depth=FOLDER, or leave it out"
            )
    return guides


@contextmanager
def _painter(settings: RefineSettings, named: Sequence[tuple[str, ControlSpec]]) -> Iterator[Painter]:
    """Load the model, the LoRA and the guides."""
    pipeline = load_pipeline(settings.model, dtype=DTYPES[settings.precision] or torch.float32)
    if settings.lora is not None:
        load_lora(pipeline, Path(settings.lora), settings.lora_weight)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for part in networks(pipeline):
        part.to(device)
    guides: list[ActiveControl] = [one.open(CONTROLS[kind], pipeline, 0.0, 1.0) for kind, one in named]
    yield Inpainter(pipeline, settings, guides)
