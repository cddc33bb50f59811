"""The settings of a build."""

from pydantic import Field, model_validator

from fairhuman.data.caption.settings import CaptionSettings
from fairhuman.data.condition.settings import ConditionSettings
from fairhuman.data.pictures.filters import FilterSettings, Need
from fairhuman.data.pipeline.select import Duplicates
from fairhuman.data.sources.columns import DEFINED, sharing_a_column
from fairhuman.data.sources.rows import SourceSettings
from fairhuman.detect.settings import DetectSettings

TIER_COLUMNS = frozenset({"id", "status", "reason", "value"})  # `tier.COMMON`, beside the defined ones


class BuildRecipe(FilterSettings):
    """The recipe of `fairhuman data build`. The filters' thresholds are at the top level.

    `detect` and `condition` may be null: then nothing is detected, or no conditions are estimated.
    """

    duplicates: Duplicates = Field(default="exact", description="duplicates to reject: none (keep), exact, near")
    near_bits: int = Field(
        default=3,
        ge=0,
        le=15,
        description="bits of 64 in which perceptual hashes of near duplicates may differ: 3 finds other sizes and "
        "compressions, 6 also small crops",
    )
    source: SourceSettings = SourceSettings()
    regions: tuple[str, ...] = Field(
        default=("face", "hand", "person"),
        description="regions whose boxes are read; other columns of boxes are found and kept too",
    )
    detect: DetectSettings | None = DetectSettings()
    detect_masked: bool = Field(
        default=False,
        description="whether boxes are also detected of regions that have a painted mask; regions.mask.painted of a "
        "training recipe says which of both is used",
    )
    caption: CaptionSettings = CaptionSettings()
    condition: ConditionSettings | None = None
    max_failed_share: float = Field(default=0.2, ge=0.0, le=1.0, description="share of rows on which a tier may fail")
    block_rows: int = Field(default=64, ge=1, description="rows per task; an interruption loses unfinished tasks only")
    shard_rows: int = Field(default=512, ge=1, description="rows per file of the data set")

    @property
    def required(self) -> tuple[Need, ...]:
        """What a picture must have: people, unless `needs` says otherwise or none are detected."""
        if self.needs is None:
            return ("people",) if self.detect is not None and self.detect.kinds else ()
        return self.needs

    @model_validator(mode="after")
    def _parts_are_regions(self) -> "BuildRecipe":
        if self.detect is None:
            return self
        for part in self.detect.kinds:
            if part not in self.regions:
                raise ValueError(f"detect.{part} must be null, because regions ({', '.join(self.regions)}) lack it")
        for name in self.detect.regions:
            if name in DEFINED | TIER_COLUMNS:
                raise ValueError(f"detect.regions: {name!r} is another column of a data set; take another name")
            if (clash := sharing_a_column(name, self.detect.regions)) is not None:
                raise ValueError(f"detect.regions: {name!r} and {clash!r} would share a column; take another name")
        return self
