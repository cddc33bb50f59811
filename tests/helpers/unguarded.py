"""What `fairhuman.detect.guard` does, in this process: quick, for tests that aren't about crashes."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Self

from fairhuman.detect.detection import DetectorError
from fairhuman.detect.worker import Failure

Start = Callable[[], AbstractContextManager[Callable[[Any], Any]]]


class Unguarded(ExitStack):
    """Stands for `Guarded`."""

    def __init__(self, start: Start, seconds: float = 60.0) -> None:
        super().__init__()
        self.start, self.seconds = start, seconds

    def __enter__(self) -> Self:
        self.find = self.enter_context(self.start())
        return self

    def call(self, item: Any) -> Any:
        try:
            return self.find(item)
        except Exception as error:
            return Failure(f"{type(error).__name__}: {error}")


def unguarded_map(start: Start, items: Sequence[Any], **_: object) -> Generator[tuple[int, Any], None, None]:
    """Stands for `guarded_map`."""
    if not items:
        return
    try:
        opened = Unguarded(start).__enter__()
    except OSError as error:
        raise DetectorError(f"a detector can't start: {error}") from error
    for index in range(len(items)):
        yield index, opened.call(items[index])
    opened.close()
