"""A folder that is refined with a tiny painter and a tiny look."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairhuman.record import Box
from fairhuman.refine.inpaint import Painter
from fairhuman.refine.page import write_page
from fairhuman.refine.parts import PartsDetector
from fairhuman.refine.run import RefineManifest, RefineOutcome, check_folders, list_sources, refine_folder
from fairhuman.refine.settings import RefineSettings
from helpers.tiny_parts import BoardLook, ContrastPainter, boards

BOX = (16, 16, 40, 40)


WEAK = boards(64, 72, {BOX: 0.3})


class Opened:
    """Painters that were opened, to be counted."""

    def __init__(self) -> None:
        self.painters: list[ContrastPainter] = []

    @contextmanager
    def __call__(self) -> Iterator[Painter]:
        self.painters.append(ContrastPainter(3.0))
        yield self.painters[-1]


@contextmanager
def look_for_board(_: RefineSettings, __: bool) -> Iterator[PartsDetector]:
    yield BoardLook([("face", Box(*BOX))])


def refine(
    images: Path, out: Path, opened: Opened | None = None, prompts: list[str] | None = None, **given: int
) -> RefineOutcome:
    started = RefineManifest(images=str(images), prompts=None, settings=RefineSettings(**given))  # type: ignore[arg-type]
    check_folders(images, out, started)
    sources = list_sources(images, prompts)
    done = refine_folder(sources, out, started, opened or Opened(), start_look=look_for_board)
    write_page(out, sources, started, done)
    return done
