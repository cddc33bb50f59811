"""Settings of a refinement."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from fairhuman.config import Settings
from fairhuman.data.condition.settings import DepthSettings
from fairhuman.detect.settings import DetectSettings

PartKind = Literal["face", "hand"]
KINDS: tuple[PartKind, ...] = ("face", "hand")
PROMPT = "{prompt}"  # stands for the picture's own prompt


class RefineSettings(Settings):
    """What is redrawn, with what, and how.

    Quality is the strict one of the evaluation, 0..1 (`fairhuman.evaluate.people.strict`).
    """

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"seconds"})

    model: str = Field(default="small", description="'small', a pipeline's folder or a hub id")
    lora: str | None = Field(default=None, description="LoRA file or folder")
    lora_weight: float = 1.0
    controlnets: tuple[str, ...] = Field(default=(), description="[CONDITIONS=]FOLDER[@STRENGTH] each")
    adapters: tuple[str, ...] = Field(default=(), description="likewise, T2I-adapters")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"

    parts: tuple[PartKind, ...] = Field(default=KINDS, min_length=1, description="what is looked at")
    poor_face: float = Field(default=0.7, ge=0, le=1, description="a face of less quality is poor")
    poor_hand: float = Field(default=0.6, ge=0, le=1, description="a hand of less quality is poor")
    gain: float = Field(default=0.05, gt=0, le=1, description="quality that a redrawn part must gain to be taken")
    least_part: float = Field(default=12, ge=1, description="pixels of the longer side; a smaller part is left alone")
    detect: DetectSettings | None = Field(
        default=None, description="further detectors: what they alone find counts as a part of quality 0"
    )
    upscale: int = Field(default=4, ge=1, description="times that pictures of up to 256 px are enlarged to be measured")

    context: float = Field(default=2.0, ge=1, description="side of the crop through the part's longer side")
    margin: float = Field(default=0.15, ge=0, le=1, description="redrawn beyond the box; share of its longer side")
    feather: float = Field(default=0.15, ge=0, le=1, description="width of the soft edge beyond that; likewise")
    size: int | None = Field(
        default=None, ge=32, description="least side, in pixels, at which a crop is redrawn; None = the model's own"
    )

    attempts: int = Field(default=3, ge=1, description="redraws of a part; the best is taken, a good one ends them")
    steps: int = Field(default=30, ge=1)
    strength: float = Field(default=0.5, gt=0, le=1, description="share of the steps, from the end, that is redrawn")
    guidance: float = Field(default=5.0, ge=1, description="classifier-free guidance; 1 = none")
    face_prompt: str = Field(default=f"close-up of a face, {PROMPT}", description=f"{PROMPT} is the picture's prompt")
    hand_prompt: str = Field(default=f"close-up of a hand, {PROMPT}", description="likewise")
    negative_prompt: str = ""
    seed: int = Field(default=0, ge=0)

    hand_depth: str = Field(
        default="capsules", description="depth of a hand: capsules around its bones, or the path of an ONNX model"
    )
    depth: DepthSettings | None = Field(default=None, description="estimates the depth of faces; None = not known")
    seconds: float = Field(default=120, gt=0, description="time limit of measuring one picture")

    @model_validator(mode="after")
    def _check(self) -> "RefineSettings":
        if len(set(self.parts)) < len(self.parts):
            raise ValueError("parts must name each part once")
        if int(self.steps * self.strength) < 1:
            raise ValueError(f"steps * strength must be at least 1, not {self.steps} * {self.strength:g}")
        return self

    def poor(self, kind: PartKind) -> float:
        """The quality below which a part is poor."""
        return self.poor_face if kind == "face" else self.poor_hand

    def prompt(self, kind: PartKind, prompt: str) -> str:
        """What a part of a picture is redrawn for."""
        template = self.face_prompt if kind == "face" else self.hand_prompt
        return template.replace(PROMPT, prompt).strip().rstrip(",")
