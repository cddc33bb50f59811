"""A detector: `detect.person=whole-picture`, for photos that are cut to one person each."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from fairhuman.detect.detection import Detection, Picture
from fairhuman.record import Box


class WholePicture:
    """Says that a picture shows one person, who fills it.

    Args:
        parts: what is looked for: of `face`, `hand`, `person` those that a recipe gives to this detector.
    """

    def __init__(self, parts: Sequence[str]) -> None:
        if list(parts) != ["person"]:
            raise ValueError(f"whole-picture finds persons alone, not {', '.join(parts)}")

    def detect(self, image: Picture) -> list[Detection]:
        """Return one box with a score of 1."""
        height, width = image.shape[:2]
        return [Detection(Box(0.0, 0.0, float(width), float(height), 1.0), "person", source="whole-picture")]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free nothing: there is no native part."""
