"""Check and load the models that redraw parts; they are loaded only when a picture needs them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from fairhuman.bases.base import networks
from fairhuman.data.condition.depth_model import check_depth_model
from fairhuman.detect.model_file import find_model
from fairhuman.errors import RecipeError
from fairhuman.generate.control_spec import ControlSpec, parse_controls
from fairhuman.generate.lora import load_lora
from fairhuman.generate.run import used_precision
from fairhuman.generate.sample import check_steps
from fairhuman.models.locations import check_base, check_lora_weight, find_lora, require_sdxl
from fairhuman.models.registry import CONTROLS, DTYPES
from fairhuman.models.sdxl import load_pipeline, scheduler_config
from fairhuman.refine.conditions import CAPSULES
from fairhuman.refine.inpaint import Inpainter, Painter
from fairhuman.refine.settings import RefineSettings
from fairhuman.utils.torch_device import default_device, explain_out_of_memory

LESS_MEMORY = "--precision bf16, base.quantize=int8, base.offload=true, or smaller crops by `size`"


def check_models(settings: RefineSettings) -> list[tuple[str, ControlSpec]]:
    """Check everything that needs no loaded model; return kinds and specifications of the control networks.

    Raises:
        RecipeError: too many steps, a LoRA weight that isn't finite, or a depth model without a network that follows
            depth.
        ModelError: a model, LoRA, control network or depth model doesn't exist.
        DetectorError: the hand depth model doesn't exist.
    """
    check_lora_weight(settings.lora_weight)
    if settings.lora is not None:
        find_lora(Path(settings.lora))
    check_base(settings.model, settings.base)
    require_sdxl(settings.model, "refine")
    schedule = scheduler_config(settings.model, settings.base)
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
                f"{name}: no control network follows depth; add one, such as --controlnet depth=FOLDER, or leave it out"
            )
    return controls


@contextmanager
def open_painter(settings: RefineSettings, controls: Sequence[tuple[str, ControlSpec]]) -> Iterator[Painter]:
    """Load the model, the LoRA and the control networks from `check_models`.

    Raises:
        ModelError: as of `load_pipeline` and `load_lora`; or, here and inside the block, the device has too little
            memory.
    """
    with explain_out_of_memory(LESS_MEMORY):
        precision = used_precision(settings.model, settings.precision)
        pipeline = load_pipeline(settings.model, dtype=DTYPES[precision] or torch.float32, base=settings.base)
        if settings.lora is not None:
            load_lora(pipeline, Path(settings.lora), settings.lora_weight)
        device = default_device()
        for part in networks(pipeline):
            part.to(device)
        guides = [spec.open(CONTROLS[kind], pipeline, 0.0, 1.0) for kind, spec in controls]
        yield Inpainter(pipeline, settings, guides)
