"""Settings of a refinement."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from fairhuman.config import Settings
from fairhuman.data.condition.settings import DepthSettings
from fairhuman.detect.settings import BUNDLED, DetectSettings, FurtherRegions, WordsSettings
from fairhuman.models.settings import BaseSettings

PartKind = Literal["face", "hand"]
Kind = Literal["face", "hand", "region"]  # of what is redrawn; a region has no measure of quality
KINDS: tuple[PartKind, ...] = ("face", "hand")
REGION: Literal["region"] = "region"
PAINTED = "painted"  # the region of painted masks
LABEL = "{region}"  # stands for the region's words, or its name
PROMPT = "{prompt}"  # stands for the picture's own prompt


class RefineSettings(Settings):
    """Settings of a refinement.

    Quality means the strict quality of the evaluation, 0..1 (`fairhuman.evaluate.people.strict`).
    """

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"seconds"})

    model: str = Field(default="small", description="'small', folder of a pipeline, .safetensors file or hub id")
    base: BaseSettings = BaseSettings()
    lora: str | None = Field(default=None, description="LoRA file or folder")
    lora_weight: float = Field(default=1.0, description="factor of the LoRA: 0 = none, 1 = as trained")
    controlnets: tuple[str, ...] = Field(default=(), description="ControlNets, [CONDITIONS=]FOLDER[@STRENGTH] each")
    adapters: tuple[str, ...] = Field(default=(), description="T2I-adapters, [CONDITIONS=]FOLDER[@STRENGTH] each")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto", description="of the networks; auto: fp16 on a GPU, fp32 on a CPU; the VAE is always fp32"
    )

    parts: tuple[PartKind, ...] = Field(default=KINDS, min_length=1, description="parts to refine")
    poor_face: float = Field(default=0.7, ge=0, le=1, description="a face below this quality is poor")
    doubtful_face: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="a detected face below this quality is probably none: it is left as it is and not counted",
    )
    poor_hand: float = Field(default=0.6, ge=0, le=1, description="a hand below this quality is poor")
    gain: float = Field(default=0.05, gt=0, le=1, description="minimum gain in quality to accept a redrawn part")
    least_part: float = Field(default=12, ge=1, description="minimum longer side in pixels; smaller parts are skipped")
    detect: DetectSettings | None = Field(
        default=None, description="additional detectors; parts that only they find have quality 0"
    )
    regions: FurtherRegions = Field(
        default_factory=dict,
        description="further regions to redraw, named as in detect.regions of a build: 'mediapipe' or words",
    )
    words: WordsSettings = WordsSettings()
    masks: str | None = Field(
        default=None, description="folder of painted masks to redraw, NAME.png for each picture NAME.*: white = redraw"
    )
    upscale: int = Field(default=4, ge=1, description="enlargement of pictures of up to 256 px before detection")

    context: float = Field(default=2.0, ge=1, description="side of the crop divided by the part's longer side")
    margin: float = Field(default=0.15, ge=0, le=1, description="redrawn margin as a fraction of the box's longer side")
    feather: float = Field(default=0.15, ge=0, le=1, description="soft edge as a fraction of the box's longer side")
    size: int | None = Field(
        default=None,
        ge=32,
        description="minimum size in pixels at which crops are redrawn; None = the model's native size",
    )

    attempts: int = Field(default=3, ge=1, description="attempts per part; the best counts, a good one stops early")
    steps: int = Field(default=30, ge=1, description="steps of the full noise schedule")
    strength: float = Field(default=0.5, gt=0, le=1, description="fraction of the steps that is run, from the end")
    guidance: float = Field(default=5.0, ge=1, description="classifier-free guidance; 1 = none")
    face_prompt: str = Field(
        default=f"close-up of a face, {PROMPT}", description=f"prompt for faces; {PROMPT} is the picture's own"
    )
    hand_prompt: str = Field(default=f"close-up of a hand, {PROMPT}", description="prompt for hands")
    region_prompt: str = Field(
        default=f"close-up of {LABEL}, {PROMPT}",
        description=f"prompt for further regions; {LABEL} is a region's words, or its name",
    )
    negative_prompt: str = Field(default="", description="what guidance steers away from")
    seed: int = Field(default=0, ge=0, description="seed of the noise")

    hand_depth: str = Field(
        default="capsules", description="depth of hands: 'capsules' around bones, or path or hub id of an ONNX model"
    )
    depth: DepthSettings | None = Field(default=None, description="depth estimator for faces; None = no depth")
    seconds: float = Field(default=120, gt=0, description="time limit for detection in one picture")

    @model_validator(mode="after")
    def _check(self) -> "RefineSettings":
        if len(set(self.parts)) < len(self.parts):
            raise ValueError("parts must name each part once")
        if int(self.steps * self.strength) < 1:
            raise ValueError(f"steps * strength must be at least 1, not {self.steps} * {self.strength:g}")
        if self.detect is not None and self.detect.regions:
            raise ValueError("detect.regions: further regions to redraw are named in regions, without detect")
        return self

    def poor(self, kind: PartKind) -> float:
        """Quality below which a part of this kind is poor."""
        return self.poor_face if kind == "face" else self.poor_hand

    def prompt(self, kind: Kind, prompt: str, label: str = "") -> str:
        """Prompt for redrawing a part of a picture with the given prompt; `label` names a region."""
        template = {"face": self.face_prompt, "hand": self.hand_prompt, REGION: self.region_prompt}[kind]
        words = self.regions.get(label, BUNDLED)
        template = template.replace(LABEL, label.replace("_", " ") if words == BUNDLED else words)
        return template.replace(PROMPT, prompt).strip().rstrip(",")
