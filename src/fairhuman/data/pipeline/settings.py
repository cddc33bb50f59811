"""The settings of a build."""

from pydantic import Field, model_validator

from fairhuman.data.caption.settings import CaptionSettings
from fairhuman.data.condition.settings import ConditionSettings
from fairhuman.data.pictures.filters import FilterSettings
from fairhuman.data.pipeline.select import Duplicates
from fairhuman.data.sources.rows import SourceSettings
from fairhuman.detect.settings import DetectSettings


class BuildRecipe(FilterSettings):
    """How a data set is built. Read by `fairhuman data build`; the filters' thresholds stand at the top.

    `detect`, `caption` and `condition` may be null: nothing is detected, the source's captions stay as they are, no
    conditions are made.
    """

    duplicates: Duplicates = Field(default="exact", description="which are left out: none (keep), exact, near")
    near_bits: int = Field(
        default=3,
        ge=0,
        le=15,
        description="of 64 in which perceptual hashes may differ: 3 finds other sizes and compressions, 6 small crops",
    )
    source: SourceSettings = SourceSettings()
    regions: tuple[str, ...] = Field(default=("face", "hand", "person"), description="whose boxes are kept")
    detect: DetectSettings | None = DetectSettings()
    caption: CaptionSettings = CaptionSettings()
    condition: ConditionSettings | None = None
    max_failed_share: float = Field(default=0.2, ge=0.0, le=1.0, description="of the rows of a tier that may fail")
    block_rows: int = Field(default=64, ge=1, description="rows that are looked at, and lost by a kill, at once")
    shard_rows: int = Field(default=512, ge=1, description="rows of a file of the data set")

    @model_validator(mode="after")
    def _parts_are_regions(self) -> "BuildRecipe":
        for part in self.detect.kinds if self.detect is not None else ():
            if part not in self.regions:
                raise ValueError(f"detect.{part} must be null, as regions ({', '.join(self.regions)}) lack it")
        return self
