"""Pictures for prompts, drawn into a folder: checks before the model is loaded, then one PNG after the other."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from fairhuman.bases.base import base_of, networks
from fairhuman.errors import RecipeError
from fairhuman.generate.checks import check_options
from fairhuman.generate.control_inputs import ControlInputs
from fairhuman.generate.control_options import ControlOptions
from fairhuman.generate.lora import load_lora
from fairhuman.generate.record import PictureKey, drawn_files, kept_pictures, plain_settings, records_of, to_entry
from fairhuman.generate.sample import SCHEDULER, check_steps, sample, save_png
from fairhuman.generate.settings import SampleSettings
from fairhuman.generate.unread import unread_of
from fairhuman.models.fingerprint import base_fingerprint, earlier_fingerprints, weights_fingerprint
from fairhuman.models.locations import find_lora, find_mole, flow_to_download, name_of, require_sdxl, side_multiple
from fairhuman.models.mole import load_mole
from fairhuman.models.registry import DTYPES
from fairhuman.models.sdxl import load_pipeline, scheduler_config
from fairhuman.models.settings import AUTO, BaseSettings
from fairhuman.report.text import plural
from fairhuman.utils.display import Display
from fairhuman.utils.files import leaving_nothing, writing
from fairhuman.utils.torch_device import explain_out_of_memory, without_gpu

LESS_MEMORY = "--batch-size 1, --quantize int8, --offload, or smaller pictures by --height and --width"


@dataclass(frozen=True)
class SampleJob:
    """What to draw, with what, and where.

    Attributes:
        out: folder of the pictures, `PROMPT-PICTURE.png` by their numbers.
        fuse: whether the LoRA is fused into the weights; None: see `fused`.
        precision: of the networks, a name of `DTYPES`; auto: fp16 on a GPU, fp32 on a CPU.
        base: a VAE in place of the model's own, and what the U-Net predicts.
        redraw: whether to replace the pictures that an earlier command drew.
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
    redraw: bool = False

    def __post_init__(self) -> None:
        """Take the base's own guidance if none is given."""
        object.__setattr__(self, "settings", self.settings.of_base(name_of(self.model)))

    def check(self) -> ControlInputs:
        """Check all that can be checked without loading the model, and read the conditions.

        Raises:
            RecipeError: an unknown precision, a weight that isn't finite, too many steps, a MoLE fused or with a LoRA.
            ModelError: no such model, LoRA or MoLE; or as of `ControlOptions.read`.
        """
        check_options(self.model, self.lora, self.lora_weight, self.fuse, self.mole, self.precision, self.base)
        self._check_base()
        schedule = scheduler_config(self.model, self.base)
        if schedule is not None and not name_of(self.model).flow:
            check_steps(schedule, self.settings.steps)
        return self.control.read(len(self.prompts), self.settings.steps)

    def _check_base(self) -> None:
        """Check that the model is one that the controls and the size are for."""
        if self.control.specs():
            require_sdxl(self.model, "a control")
        step, what = side_multiple(self.model), self.model
        if not name_of(self.model).flow:  # a T2I-adapter halves the latents once, the U-Net twice
            step, what = (step // 2, "a T2I-adapter") if self.control.adapters else (1, what)
        size = (self.settings.height, self.settings.width)
        if any(side is not None and side % step for side in size):
            raise RecipeError(f"height and width must be multiples of {step} for {what}, found {size}")

    @property
    def used_precision(self) -> str:
        """The precision that `auto` stands for on this machine, or the one that is set."""
        return used_precision(self.model, self.precision)

    @property
    def fused(self) -> bool:
        """Whether the LoRA is fused; by default in fp32 alone, as `load_lora` has it."""
        whole = self.used_precision == "fp32" and self.base == self.base.whole
        return whole if self.fuse is None else self.fuse

    def load(self) -> Any:
        """Load the model.

        Raises:
            ModelError: as of `load_pipeline`.
        """
        return load_pipeline(self.model, dtype=DTYPES[self.used_precision] or torch.float32, base=self.base)

    def records(self, asked: ControlInputs) -> dict[PictureKey, dict[str, Any]]:
        """What each picture is drawn with: settings, hashes of all weights, its prompt and a hash of its conditions."""
        lora, mole = (weights_fingerprint(*files) for files in (self._lora_files, self._mole_files))
        schedule = scheduler_config(self.model, self.base)
        common = {
            **plain_settings(self.settings),
            "scheduler": schedule["_class_name"] if schedule and name_of(self.model).flow else SCHEDULER,
            "model": base_fingerprint(self.model, self.base) or self.model,
            **self.base.model_dump(mode="json", exclude_defaults=True),
            "precision": self.used_precision,
            "lora": lora and {"content": lora, "weight": self.lora_weight, "fuse": self.fused},
            "mole": mole,
            "controls": self.control.contents() or None,
        }
        return records_of(common, self.prompts, self.settings.images_per_prompt, asked.hashes(len(self.prompts)))

    def planned(self, size: tuple[int, int]) -> str:
        """What would be drawn at (height, width), in a line."""
        one = self.settings
        texts = (f"suffix {one.prompt_suffix!r}", f"negative prompt {one.negative_prompt!r}")
        said = [text for text, given in zip(texts, (one.prompt_suffix, one.negative_prompt), strict=True) if given]
        return ", ".join(
            [
                f"{plural(len(self.prompts), 'prompt')} x {plural(one.images_per_prompt, 'picture')}",
                f"{size[1]} x {size[0]} pixels (width x height)",
                f"{one.steps} steps",
                f"guidance {one.scale:g}",
                f"seed {one.seed}",
                *said,
            ]
        )

    def kept(self, records: Mapping[PictureKey, Mapping[str, Any]]) -> set[PictureKey]:
        """The pictures in `out` that the job doesn't draw again.

        Raises:
            DataError: the folder holds pictures that would be mixed with those of the job; see `kept_pictures`.
        """
        if self.redraw:
            drawn_files(self.out)
            return set()
        weights = (*self._lora_files, *self._mole_files, *(Path(spec.place) for _, spec in self.control.specs()))
        return kept_pictures(self.out, records, earlier_fingerprints(*weights))

    @property
    def _lora_files(self) -> list[Path]:
        return [find_lora(self.lora)] if self.lora is not None else []

    @property
    def _mole_files(self) -> list[Path]:
        return [find_mole(self.mole)] if self.mole is not None else []


def draw_pictures(job: SampleJob, asked: ControlInputs, display: Display) -> Iterator[tuple[Path, str]]:
    """Draw and write the missing pictures, and yield each one's file and prompt; of several processes each draws some.

    `asked` is from `SampleJob.check`; `display` tells how many pictures are kept, which prompts get the null condition,
    and how many denoising steps are done.

    Raises:
        DataError: as of `SampleJob.kept`.
        ModelError: the device has too little memory.
        FairHumanError: the folder can't be written; a model, LoRA, MoLE or control network that can't be used.
    """
    with leaving_nothing(job.out), explain_out_of_memory(LESS_MEMORY):
        with writing(job.out):
            job.out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=job.out).close()
        state = PartialState(cpu=without_gpu())
        # the record of a picture is read from the model's files, so they are fetched first
        pipeline = job.load() if flow_to_download(job.model) else None
        records = job.records(asked)
        kept = job.kept(records)
        if kept:
            display.say(f"{job.out}: {len(kept)} of {plural(len(records), 'picture')} are there and kept")
        if len(kept) == len(records):
            return
        if pipeline is None:
            pipeline = job.load()
        one = job.settings
        for line in unread_of(base_of(pipeline), job.prompts, one.prompt_suffix, one.negative_prompt):
            display.say(line)
        lora = load_lora(pipeline, job.lora, job.lora_weight, job.fused) if job.lora is not None else None
        mole = load_mole(pipeline.unet, job.mole) if job.mole is not None else None
        for part in networks(pipeline):
            part.to(state.device)
        guides = job.control.open(pipeline, asked, job.settings, display.say)
        _replace(job, state)
        for picture in sample(
            pipeline,
            job.prompts,
            job.settings,
            job.model,
            lora,
            guides=guides,
            asked=asked,
            mole=mole,
            share=(state.process_index, state.num_processes),
            there=kept,
            on_step=partial(display.progress, "denoising steps"),
        ):
            key = PictureKey(picture.prompt_index, picture.picture_index)
            path = job.out / key.name
            with writing(path):
                save_png(picture.image, path, {**picture.metadata, **to_entry(records[key])})
            yield path, job.prompts[key.prompt]


def _replace(job: SampleJob, state: PartialState) -> None:
    """Wait until all processes have looked into the folder, and remove what an earlier command drew if asked to."""
    state.wait_for_everyone()
    if job.redraw and state.is_main_process:
        for file in drawn_files(job.out):
            with writing(file):
                file.unlink()
    state.wait_for_everyone()


def used_precision(model: str, precision: str) -> str:
    """The precision that `auto` stands for on this machine, or the one that is given."""
    half = "bf16" if name_of(model).flow else "fp16"  # text encoders of other bases than SDXL overflow in fp16
    return precision if precision != AUTO else "fp32" if without_gpu() else half
