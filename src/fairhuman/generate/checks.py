"""First checks of the options of sampling, which need no torch."""

from collections.abc import Sequence
from pathlib import Path

from fairhuman.data.sources.prompts import prompts_at
from fairhuman.errors import RecipeError
from fairhuman.models.locations import check_base, check_half, check_lora_weight, find_lora, find_mole, require_sdxl
from fairhuman.models.settings import AUTO, PRECISIONS, BaseSettings


def check_options(
    model: str,
    lora: Path | None,
    lora_weight: float,
    fuse: bool | None,
    mole: Path | None,
    precision: str,
    base: BaseSettings,
) -> None:
    """Check the options of `SampleJob` that say which model is drawn with.

    Raises:
        RecipeError: an unknown precision, or one that overflows; a weight that isn't finite, a MoLE fused or
            with a LoRA.
        ModelError: no such model, LoRA or MoLE.
    """
    if precision not in (AUTO, *PRECISIONS):
        raise RecipeError(f"--precision must be one of {', '.join((AUTO, *PRECISIONS))}, found {precision!r}")
    check_lora_weight(lora_weight)
    if lora is not None:
        find_lora(lora)
    if mole is not None:
        if lora is not None:
            raise RecipeError("--mole and --lora: give only one of them, both change the same layers")
        if fuse:
            raise RecipeError("--fuse: a MoLE can't be fused, as its gates depend on every input; leave --fuse out")
        find_mole(mole)
        require_sdxl(model, "a MoLE")
    check_base(model, base)
    check_half(model, precision)


def collect_prompts(typed: Sequence[str], file: Path | None) -> list[str]:
    """Prompts of `--prompt`, then those of the file or data set of `--prompts`.

    Raises:
        DataError: as of `prompts_at`.
        RecipeError: there is no prompt, or an empty one.
    """
    if not all(text.strip() for text in typed):
        raise RecipeError("--prompt: expected a text, found an empty one")
    prompts = [*typed, *(prompts_at(file) if file is not None else ())]
    if not prompts:
        raise RecipeError("no prompt: give --prompt TEXT or --prompts FILE")
    return prompts
