"""Settings of a validation set."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from fairhuman.config import Settings
from fairhuman.data.caption.settings import EndpointSettings, TokenSettings, TransformersSettings
from fairhuman.data.pictures.filters import FilterSettings, Need
from fairhuman.data.sources.rows import SourceSettings
from fairhuman.data.validation.sampling import Allocation, Sampling
from fairhuman.data.validation.shorten import MAX_WORDS
from fairhuman.detect.settings import DetectSettings

BRIEF = (
    "Describe the people in this picture in one brief and clear sentence of at most 20 words: who they are, what they "
    "wear, what they do, where. No adjectives but for age and origin, no subordinate clauses, no style, nothing that "
    "isn't about the people. Examples: A woman in dress standing in front of a building. A man in a suit and tie "
    "standing with his hands on his hips."
)  # the examples are the supplement's


class BriefTransformers(TransformersSettings):
    """Settings of a local model that writes brief prompts."""

    prompt: str = Field(default=BRIEF, min_length=1, description="request to the model; it sees only the picture")


class BriefEndpoint(EndpointSettings):
    """Settings of a model at an endpoint that writes brief prompts."""

    prompt: str = Field(default=BRIEF, min_length=1, description="request to the model; it sees only the picture")


class PromptSettings(Settings):
    """Settings of brief and clear prompts, with a section for each kind of model."""

    kind: Literal["rules", "transformers", "endpoint"] = Field(
        default="rules",
        description="rules: captions without parentheses and trailing clauses; or a vision-language model (better)",
    )
    max_words: int = Field(default=MAX_WORDS, ge=3, description="maximum words of a prompt by rules")
    max_failed_share: float = Field(
        default=0.1, ge=0.0, description="maximum failures of a model, as a share of count; more end the run"
    )
    transformers: BriefTransformers = BriefTransformers()
    endpoint: BriefEndpoint = BriefEndpoint()
    tokens: TokenSettings = TokenSettings()

    @model_validator(mode="after")
    def _model_named(self) -> "PromptSettings":
        for kind, section in (("transformers", self.transformers), ("endpoint", self.endpoint)):
            if self.kind == kind and not section.model.strip():
                raise ValueError(f"kind {kind} needs {kind}.model")
        return self


class ValidationFilters(FilterSettings):
    """Filters with the supplement's three criteria switched on: resolution, clarity, relevance."""

    needs: tuple[Need, ...] | None = Field(
        default=("face or hand",), description="what a picture must have, at least one of each; null: nothing"
    )
    min_persons: int | None = Field(default=1, ge=0, description="number of persons in a picture")
    min_clarity_percentile: float | None = Field(
        default=5.0,
        ge=0.0,
        le=100.0,
        description="percentile of the variance of the Laplacian, over pictures that pass the other filters",
    )


class ValidationSetSettings(Settings):
    """Settings of a validation set: selection of pictures, and prompts."""

    count: int = Field(default=5000, ge=1, description="pictures in the set")
    seed: int = Field(default=0, ge=0, description="another seed draws an independent set")
    allow_fewer: bool = Field(default=False, description="take all usable pictures if there are fewer than count")
    sampling: Sampling = Field(default="random", description="random (as in the paper) or stratified")
    strata: tuple[str, ...] = Field(
        default=("scene", "persons", "gender", "age"),
        min_length=1,
        description="dimensions of strata and of the reported mix: scene, persons or names of attributes",
    )
    allocation: Allocation = Field(default="proportional", description="records per stratum: by its size, or equal")
    draws: int = Field(
        default=1, ge=1, le=1000, description="number of draws, with seeds from `seed` on, to estimate the spread"
    )
    filters: ValidationFilters = ValidationFilters()
    detect: DetectSettings | None = Field(
        default=DetectSettings(),
        description="detectors of what the filters need and the source doesn't know; null: nothing is detected",
    )
    prompts: PromptSettings = PromptSettings()
    source: SourceSettings = SourceSettings()

    @field_validator("strata")
    @classmethod
    def _once(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) < len(names) or not all(names):
            raise ValueError(f"names must be distinct and not empty, not {names}")
        return names

    @field_validator("detect")
    @classmethod
    def _of_filters(cls, detect: DetectSettings | None) -> DetectSettings | None:
        if detect is not None and detect.regions:
            raise ValueError("a validation set is filtered by faces, hands and persons alone: leave out detect.regions")
        return detect
