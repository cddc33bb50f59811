"""The model that redraws parts: checked by name first, loaded only when a picture needs it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from fairhuman.data.condition.depth_model import check_depth_model
from fairhuman.detect.model_file import find_model
from fairhuman.errors import RecipeError
from fairhuman.generate.control_options import parse_controls
from fairhuman.generate.guide import ControlSpec
from fairhuman.generate.lora import check_lora_weight, find_lora, load_lora
from fairhuman.generate.sample import check_steps
from fairhuman.models.locations import check_location
from fairhuman.models.registry import CONTROLS, DTYPES
from fairhuman.models.sdxl import load_pipeline, networks, scheduler_config
from fairhuman.refine.conditions import CAPSULES
from fairhuman.refine.inpaint import Inpainter, Painter
from fairhuman.refine.settings import RefineSettings


def check_models(settings: RefineSettings) -> list[tuple[str, ControlSpec]]:
    """Check all that can be checked without loading a model; return kinds and places of the control networks.

    Raises:
        RecipeError: too many steps, a weight that isn't finite, a depth model whose depth no network follows.
        ModelError: no such model, LoRA, control network or depth model.
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
    controls = parse_controls(settings.controlnets, settings.adapters)
    for kind, spec in controls:
        spec.check(CONTROLS[kind])
    if settings.depth is not None or settings.hand_depth != CAPSULES:
        follows = [spec.follows(CONTROLS[kind]) for kind, spec in controls]
        if all(names is not None and "depth" not in names for names in follows):
            name = "hand_depth" if settings.depth is None else "depth.model"
            raise RecipeError(
                f"{name}: no guide follows depth; give one, as --controlnet depth=FOLDER, or leave it out"
            )
    return controls


@contextmanager
def open_painter(settings: RefineSettings, controls: Sequence[tuple[str, ControlSpec]]) -> Iterator[Painter]:
    """Load the model, the LoRA and the control networks of `check_models`."""
    pipeline = load_pipeline(settings.model, dtype=DTYPES[settings.precision] or torch.float32)
    if settings.lora is not None:
        load_lora(pipeline, Path(settings.lora), settings.lora_weight)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for part in networks(pipeline):
        part.to(device)
    yield Inpainter(pipeline, settings, [spec.open(CONTROLS[kind], pipeline, 0.0, 1.0) for kind, spec in controls])
