"""Regions by name: parts of the body by the bundled models, anything else by words."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from fairhuman.detect.body_parts import BodyParts, open_body_parts
from fairhuman.detect.bundled import source_name
from fairhuman.detect.detection import Picture
from fairhuman.detect.found_region import FoundRegion
from fairhuman.detect.guard import Guarded
from fairhuman.detect.settings import BUNDLED, WordsSettings
from fairhuman.detect.worker import Failure
from fairhuman.utils.closing import Closing

SECONDS = 120.0  # time limit of one picture


class NamedRegions(Closing):
    """Finds the regions of `detect.regions`. Native code may crash: the bundled models run in a process of their own.

    Args:
        regions: name to `mediapipe` or to words.
        words: the models that find regions by words; loaded only where one is named so.
        confidence: minimum score of a person, of whom the bundled models find parts.
        upscale: factor by which they enlarge pictures of up to 256 px first.
        persons: maximum number of persons of whom they find parts.

    Attributes:
        sources: what finds each region, as stored with it.

    Raises:
        DetectorError, ModelError: a model can't be loaded.
    """

    def __init__(
        self, regions: Mapping[str, str], words: WordsSettings, confidence: float, upscale: int, persons: int
    ) -> None:
        by_words = {name: phrase for name, phrase in regions.items() if phrase != BUNDLED}
        self._body = frozenset(regions.keys() - by_words.keys())
        self.sources = {name: source_name(BodyParts.MODEL) for name in self._body}
        self._guarded: Guarded[Picture, dict[str, FoundRegion]] | None = None
        self._finder = None
        self._closing = ExitStack()
        with ExitStack() as stack:
            if self._body:
                start = partial(open_body_parts, confidence, upscale, persons)
                self._guarded = stack.enter_context(Guarded(start, SECONDS))
            if by_words:
                from fairhuman.detect.words import WordsFinder

                self._finder = stack.enter_context(WordsFinder(words, by_words))
                self.sources |= {name: f"{self._finder.source}: {phrase}" for name, phrase in by_words.items()}
            self._closing = stack.pop_all()
        self.batch_size = words.batch_size if by_words else 1

    def find(
        self, pictures: Sequence[Picture], names: Sequence[Sequence[str]]
    ) -> list[dict[str, FoundRegion] | Failure]:
        """Of each upright RGB picture [H, W, 3] the regions among its `names` that are found, or why it failed."""
        bodies = [self._parts(picture, wanted) for picture, wanted in zip(pictures, names, strict=True)]
        left = [number for number, found in enumerate(bodies) if not isinstance(found, Failure)]
        if self._finder is not None and left:
            asked = [[name for name in names[number] if name not in self._body] for number in left]
            answers = self._finder.find([pictures[number] for number in left], asked)
            for number, found in zip(left, answers, strict=True):
                bodies[number] = {**bodies[number], **found}  # type: ignore[dict-item]  # failures aren't left
        return bodies

    def _parts(self, picture: Picture, wanted: Sequence[str]) -> dict[str, FoundRegion] | Failure:
        if self._guarded is None or self._body.isdisjoint(wanted):
            return {}
        found = self._guarded.call(picture)
        return found if isinstance(found, Failure) else {name: found[name] for name in wanted if name in found}

    def close(self) -> None:
        """End the process and free the models; a second call does nothing."""
        self._closing.close()
