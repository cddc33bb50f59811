"""What stands above every page of the studio and of a review."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Frame:
    """The head of a page.

    Attributes:
        name: of the application.
        root: path of its first page.
        links: the navigation: texts by path below `root`.
        current: path of the entry that the page belongs to.
        read_only: whether nothing can be changed.
    """

    name: str
    root: str
    links: Mapping[str, str] = field(default_factory=dict)
    current: str = ""
    read_only: bool = False
