"""Sampling the pictures of a grid's models for the same prompts and with the same noise."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from fairhuman.compare.jobs import Command, run_jobs, sampling_job, sampling_options
from fairhuman.compare.pictures import MAX_ROWS
from fairhuman.compare.settings import DrawSettings, slug
from fairhuman.data.samples.views import digest
from fairhuman.errors import DataError, RecipeError
from fairhuman.evaluate.metrics.held_out_losses import ModelSpec
from fairhuman.models.locations import check_location
from fairhuman.utils.files import read_prompts, write_text


def parse_models(places: Mapping[str, str], prompts: Path | None) -> dict[str, ModelSpec]:
    """The methods that are models rather than folders of pictures.

    Raises:
        DataError: a model without prompts.
        RecipeError: prompts without a model, or as in `ModelSpec.parse` and `ModelSpec.added_weights`.
        ModelError: a model, LoRA or MoLE doesn't exist.

    """
    drawing = {name: place for name, place in places.items() if not _holds_pictures(Path(place))}
    if prompts is None and drawing:
        name, place = next(iter(drawing.items()))
        raise DataError(
            f"method {name!r}: expected a folder of pictures, found none at {place}; a model needs --prompts FILE"
        )
    if prompts is not None and not drawing:
        raise RecipeError("--prompts: all methods are folders of pictures, none is a model that could sample")
    models = {name: ModelSpec.parse(place) for name, place in drawing.items()}
    for model in models.values():
        check_location(model.model)
        model.added_weights()
    return models


def draw_models(
    models: Mapping[str, ModelSpec], prompts: Path, settings: DrawSettings, out: Path, console: Console
) -> dict[str, Path] | int:
    """Sample missing pictures into subfolders of `out`; returns the folders by name, or the signal that interrupted it.

    Raises:
        DataError: the prompts can't be read, or there are more than 64.
        FairHumanError: a sampling command failed; quotes the end of its log.

    """
    texts = read_prompts(prompts)
    if len(texts) > MAX_ROWS:
        raise DataError(f"{prompts}: a grid takes at most {MAX_ROWS} prompts, found {len(texts)}")
    lines = "\n".join(texts) + "\n"
    folder = out / digest(f"{settings.decisive()}{lines}")[:12]
    write_text(folder / "prompts.txt", lines)
    folders = {name: folder / f"{slug(name)}-{digest(str(model))[:8]}" for name, model in models.items()}
    jobs = [_job(name, model, folders[name], len(texts), settings) for name, model in models.items()]
    signal = run_jobs(jobs, console, settings.processes)
    return folders if signal is None else signal


def _holds_pictures(place: Path) -> bool:
    return place.is_dir() and not (place / "model_index.json").is_file()


def _job(name: str, model: ModelSpec, out: Path, count: int, settings: DrawSettings) -> Command:
    size = (settings.resolution, settings.resolution)
    options = sampling_options(model.model, settings.steps, settings.guidance, size, settings.seed)
    added = model.added_weights()
    if added is not None:
        file, mole = added
        options += ["--mole", file] if mole else ["--lora", file, "--lora-weight", model.weight]
    return sampling_job(f"pictures of {name}", out, out.parent / "prompts.txt", count, options)
