"""Settings of the studio."""

from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.review.settings import ReviewRules
from fairhuman.data.sources import SourceSettings


class StudioSettings(Settings):
    """Settings of `fairhuman studio`."""

    read_only: bool = Field(default=False, description="show everything and change nothing, to share it")
    hosts: tuple[str, ...] = Field(
        default=(), description="host names of this machine that browsers may use, besides localhost and its addresses"
    )
    url: str | None = Field(default=None, description="address that people type, if a proxy stands before the server")
    regions: tuple[str, ...] = Field(
        default=(), description="regions to show besides face, hand, person and those that a data set has boxes of"
    )
    source: SourceSettings = SourceSettings()
    review: ReviewRules = ReviewRules()
