"""Pictures for prompts, drawn into a folder: checks before the model is loaded, then one PNG after the other."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from fairhuman.generate.checks import check_options
from fairhuman.generate.control_inputs import ControlInputs
from fairhuman.generate.control_options import ControlOptions
from fairhuman.generate.lora import load_lora
from fairhuman.generate.sample import check_steps, sample, save_png
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.mole import load_mole
from fairhuman.models.registry import DTYPES
from fairhuman.models.sdxl import load_pipeline, networks, scheduler_config
from fairhuman.models.settings import AUTO, BaseSettings
from fairhuman.utils.display import Display
from fairhuman.utils.files import leaving_nothing, writing


@dataclass(frozen=True)
class SampleJob:
    """What to draw, with what, and where.

    Attributes:
        out: folder of the pictures, `PROMPT-PICTURE.png` by their numbers.
        fuse: whether the LoRA is fused into the weights; None: the default, which fuses a LoRA.
        precision: of the networks, a name of `DTYPES`; auto: fp16 on a GPU, fp32 on a CPU.
        base: a VAE in place of the model's own, and what the U-Net predicts.
    """

    out: Path
    prompts: Sequence[str]
    settings: SampleSettings
    model: str
    lora: Path | None = None
    lora_weight: float = 1.0
    fuse: bool | None = None
    mole: Path | None = None
    precision: str = AUTO
    base: BaseSettings = field(default_factory=BaseSettings)
    control: ControlOptions = field(default_factory=ControlOptions)

    def check(self) -> ControlInputs:
        """Check all that can be checked without loading the model, and read the conditions.

        Raises:
            RecipeError: an unknown precision, a weight that isn't finite, too many steps, a MoLE fused or with a LoRA.
            ModelError: no such model, LoRA or MoLE; or as of `ControlOptions.read`.
        """
        check_options(self.model, self.lora, self.lora_weight, self.fuse, self.mole, self.precision, self.base)
        schedule = scheduler_config(self.model, self.base)
        if schedule is not None:
            check_steps(schedule, self.settings.steps)
        return self.control.read(len(self.prompts), self.settings.steps)


def draw_pictures(job: SampleJob, asked: ControlInputs, display: Display) -> Iterator[tuple[Path, str]]:
    """Draw and write the pictures, and yield each one's file and prompt; of several processes each draws some.

    `asked` is from `SampleJob.check`; `display` tells which prompts get the null condition,
    and how many denoising steps are done.

    Raises:
        FairHumanError: the folder can't be written; a model, LoRA, MoLE or control network that can't be used.
    """
    with leaving_nothing(job.out):
        with writing(job.out):
            job.out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=job.out).close()
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
        # in fp16 fusing a LoRA rounds its update by a few per cent; in bf16 by tens of per cent
        precision = ("fp16" if state.device.type == "cuda" else "fp32") if job.precision == AUTO else job.precision
        pipeline = load_pipeline(job.model, dtype=DTYPES[precision] or torch.float32, base=job.base)
        lora = load_lora(pipeline, job.lora, job.lora_weight, job.fuse is not False) if job.lora is not None else None
        mole = load_mole(pipeline.unet, job.mole) if job.mole is not None else None
        for part in networks(pipeline):
            part.to(state.device)
        guides = job.control.open(pipeline, asked, job.settings, display.say)
        share = (state.process_index, state.num_processes)
        for picture in sample(
            pipeline,
            job.prompts,
            job.settings,
            job.model,
            lora,
            guides=guides,
            asked=asked,
            mole=mole,
            share=share,
            on_step=partial(display.progress, "denoising steps"),
        ):
            path = job.out / f"{picture.prompt_index:05d}-{picture.picture_index:02d}.png"
            with writing(path):
                save_png(picture.image, path, picture.metadata)
            yield path, job.prompts[picture.prompt_index]
