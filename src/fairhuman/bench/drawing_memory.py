"""Memory that drawing pictures needs, and whether main memory holds it where there is no GPU."""

import os
from functools import partial

from fairhuman import config
from fairhuman.bases.base import base_of, networks
from fairhuman.errors import FairHumanError, ModelError
from fairhuman.models.settings import BaseSettings
from fairhuman.train.memory import MemoryChange, sampling_memory, shape_of
from fairhuman.train.preflight import CPU_MARGIN
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.memory import main_memory_bytes
from fairhuman.utils.torch_device import without_gpu

GIB = 2**30
PLENTY = 8  # bytes a parameter: twice the model in float32, which is enough for any usual picture, and isn't computed
CHANGES = (("precision=bf16",), ("base.quantize=int8",), ("precision=bf16", "base.quantize=int8"))


def drawing_needs(
    model: str,
    precision: str,
    overrides: tuple[str, ...] = (),
    *,
    size: tuple[int, int] = (1024, 1024),
    batch_size: int = 4,
    base: BaseSettings | None = None,
    rank: int = 1,
    cpu: bool = False,
) -> MemoryChange:
    """Compute the memory of drawing with a LoRA on attention.

    Args:
        model, base: as of a training recipe.
        precision: a name of `DTYPES`.
        overrides: changes of the settings, as of a training recipe.
        size: height and width in pixels.
        batch_size: pictures at once; other bases than SDXL draw one after the other.
        rank: of the LoRA.
        cpu: without a GPU.

    Raises:
        FairHumanError, OSError: as of `memory_of`.
    """
    values = {
        **{"model": model, "data": "none", "out": "none", "steps": 1, "precision": precision, "lora": {"rank": rank}},
        **{"resolution": list(size), "batch_size": batch_size, "base": (base or BaseSettings()).model_dump()},
    }
    return MemoryChange(overrides, sampling_memory(config.build(TrainRecipe, values, overrides)), cpu)


def check_drawing_memory(
    model: str, precision: str, base: BaseSettings, size: tuple[int | None, int | None], batch_size: int
) -> None:
    """Refuse to draw without a GPU what main memory can't hold, before anything is loaded.

    Args:
        model, precision, base, batch_size: as of `drawing_needs`.
        size: height and width in pixels; None: the model's own.

    Raises:
        ModelError: names the need, what is there and a change that fits.
    """
    if not without_gpu():
        return
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    limit = main_memory_bytes()
    room = int(limit / CPU_MARGIN) // here
    try:
        shape = shape_of(model)
        if room > PLENTY * sum(weight.numel() for part in networks(shape) for weight in part.parameters()):
            return
        side = base_of(shape).side
        needs = partial(
            drawing_needs,
            *(model, precision),
            size=(size[0] or side, size[1] or side),
            batch_size=batch_size,
            base=base,
            cpu=True,
        )
        needed = needs().needed
    except (OSError, ValueError, FairHumanError):  # loading says what is wrong
        return
    if needed <= room:
        return
    fitting = next((change for change in map(needs, CHANGES) if change.needed <= room), None)
    change = (
        "smaller pictures, or a GPU"
        if fitting is None
        else str(fitting).replace(" base.", " and ").removeprefix("base.").replace("=", " ")
    )
    each = f" for each of {here} processes" if here > 1 else ""
    raise ModelError(
        f"model {model!r}: there is no GPU, and drawing needs about {needed / GIB:.1f} GiB of main memory{each}, "
        f"or up to 8 % more; it has {limit / GIB:.1f}. What fits: {change}. --skip-memory-check starts it all the same"
    )
