"""Inspect each picture once: decode it, hash its bytes and measure its clarity."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from fairhuman.data.pictures.decode import PictureLimits, decode, pixel_digest
from fairhuman.data.pictures.filters import clarity
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.record import Finding, HumanRecord
from fairhuman.utils.journal import Journal

BLOCK = 128  # pictures between two writes of the journal
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class PictureInspection:
    """Result of inspecting a picture: `pixel_digest` of its bytes, and clarity."""

    digest: str
    clarity: float


def inspect_pictures(
    records: Sequence[HumanRecord], limits: PictureLimits, journal: Journal, progress: Callable[[int], None]
) -> Iterator[PictureInspection | Finding]:
    """The look at each record's picture in order, or the reason for a failure.

    Pictures whose hash is in the journal aren't decoded again.
    """
    known = {row["digest"]: float(row["clarity"]) for row in journal}
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(records), BLOCK):
            block = records[start : start + BLOCK]
            found = list(pool.map(partial(_look, known, limits), block))
            looks = {look.digest: look.clarity for look in found if isinstance(look, PictureInspection)}
            journal.add({"digest": d, "clarity": c} for d, c in looks.items() if d not in known)
            known |= looks
            progress(start + len(block))
            yield from found


def _look(known: dict[str, float], limits: PictureLimits, record: HumanRecord) -> PictureInspection | Finding:
    try:
        content = read_bytes(record.image)
        digest = pixel_digest(content).hex()
        if digest in known:
            return PictureInspection(digest, known[digest])
        return PictureInspection(digest, clarity(decode(content, limits).picture))
    except PictureError as error:
        return error.finding
