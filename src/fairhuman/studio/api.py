"""Bodies of the studio's requests."""

from pydantic import Field

from fairhuman.config import Settings


class RunBody(Settings):
    """Names a run."""

    run: str


class PictureBody(Settings):
    """Names a picture of a data set by number and key, and the version of its changes that the page has."""

    name: str
    number: int = Field(ge=0)
    key: str = Field(max_length=10_000)
    version: int = Field(ge=0)


class ChangeBody(PictureBody):
    """A new caption, or all of a region: its boxes, and its mask as runs of cells; see `studio.cells`."""

    caption: str | None = None
    region: str | None = None
    boxes: list[list[float]] | None = None
    runs: list[int] | None = None


class UndoBody(PictureBody):
    """Takes back the last change, or with `again` the last undo."""

    again: bool = False


class NameBody(Settings):
    """Names a data set."""

    name: str


class NamesBody(Settings):
    """Names the folders or runs of a comparison."""

    names: list[str] = Field(min_length=1, max_length=6)


class ChoiceBody(NamesBody):
    """Star and note of a row of a comparison."""

    row: str = Field(max_length=20_000)
    star: bool
    note: str = Field(default="", max_length=2000)


class RecipeBody(Settings):
    """A recipe by its name in the form, and settings as `key=value`."""

    recipe: str
    settings: list[str] = Field(default=[], max_length=300)
