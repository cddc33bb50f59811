"""Traces that a picture's file leaves in its pixels, by which participants could tell methods apart.

A JPEG's quantisation leaves gaps in the spectrum of its 8 x 8 blocks, which survive another encoding; so do the spectra
of other sizes. Formats, tables, sizes and profiles of the methods' files are compared here, from their headers.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, JpegImagePlugin

from fairhuman.data.pictures.decode import open_image
from fairhuman.study.pictures import PASSES, Recoding, Tables

SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")  # Pillow's numbers 0 to 2
LEAST = 90  # JPEG quality of a recoding where no file has a lower one


@dataclass(frozen=True, slots=True)
class SourceTrace:
    """What a file's header says about its pixels.

    Attributes:
        kind: format, and Pillow's mode unless it is RGB.
        size: width and height.
        profile: length of the colour profile in bytes; 0: none.
        tables: quantisation tables of a JPEG; empty for other formats.
        sampling: chroma sampling of a JPEG, one of `SAMPLINGS`, or "unknown"; empty for other formats.
    """

    kind: str
    size: tuple[int, int]
    profile: int
    tables: Tables
    sampling: str

    @property
    def encoding(self) -> str:
        """Format, quality and sampling in words."""
        if not self.tables:
            return self.kind
        return f"{self.kind} of quality {_quality(self.tables)}, {self.sampling}"

    @property
    def shape(self) -> str:
        """Size in words."""
        return f"{self.size[0]} x {self.size[1]}"

    @property
    def colours(self) -> str:
        """Colour profile in words."""
        return f"a profile of {self.profile} bytes" if self.profile else "no profile"


def trace_of(file: Path) -> SourceTrace:
    """Read the header of a picture.

    Raises:
        PictureError: the file isn't a picture.
    """
    with open_image(file) as image:
        kind = f"{image.format}" if image.mode == "RGB" else f"{image.format} ({image.mode})"
        if kind.startswith("WEBP") and b"VP8L" in file.read_bytes()[:4096]:
            kind = f"lossless {kind}"
        tables: Tables = ()
        sampling = ""
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            tables = tuple(tuple(table) for _, table in sorted(image.quantization.items()))
            number = JpegImagePlugin.get_sampling(image)
            sampling = SAMPLINGS[number] if 0 <= number < len(SAMPLINGS) else "unknown"
        return SourceTrace(kind, image.size, len(image.info.get("icc_profile") or b""), tables, sampling)


def trace_notes(rows: Sequence[Mapping[str, SourceTrace]], equalized: bool) -> list[str]:
    """Sentences on what differs between the methods' files of the same prompt, and on what helps."""
    differing = [
        f"{what} ({_listed(rows, words)})"
        for what, key, words in (
            ("encoding", ("kind", "tables", "sampling"), "encoding"),
            ("size", ("size",), "shape"),
            ("colour profile", ("profile",), "colours"),
        )
        if any(len({tuple(getattr(trace, name) for name in key) for trace in row.values()}) > 1 for row in rows)
    ]
    notes = []
    if differing:
        found = f"The methods' files differ in {' and in '.join(differing)}."
        advice = " This can be measured in the pictures that participants get; --equalize recodes all alike."
        notes.append(found if equalized else found + advice)
    if equalized:
        recoding = recoding_of(rows)
        notes.append(
            f"Equalized: every picture was encoded {PASSES} times as JPEG of quality {_quality(recoding.tables)}, "
            f"{recoding.sampling}, and resized once to 7/8 of the smallest size of its item."
        )
    return notes


def recoding_of(rows: Sequence[Mapping[str, SourceTrace]]) -> Recoding:
    """The coarsest encoding among the files, and at least that of JPEG quality 90.

    Files that were encoded so already hardly change, and all others become like them.
    """
    traces = [trace for row in rows for trace in row.values() if trace.tables]
    tables = [standard_tables(LEAST), *((*trace.tables, trace.tables[0])[:2] for trace in traces)]
    coarsest = tuple(tuple(max(values) for values in zip(*of, strict=True)) for of in zip(*tables, strict=True))
    known = [trace.sampling for trace in traces if trace.sampling in SAMPLINGS]
    return Recoding(coarsest, max(known, key=SAMPLINGS.index, default=SAMPLINGS[0]))


@cache
def standard_tables(quality: int) -> Tables:
    """The two quantisation tables that encoders use for a JPEG quality of 1 to 100."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        assert isinstance(image, JpegImagePlugin.JpegImageFile)
        return tuple(tuple(table) for _, table in sorted(image.quantization.items()))


def _quality(tables: Tables) -> int:
    """The JPEG quality whose standard table for luma is closest."""
    return min(
        range(100, 0, -1),
        key=lambda quality: sum(abs(a - b) for a, b in zip(standard_tables(quality)[0], tables[0], strict=True)),
    )


def _listed(rows: Sequence[Mapping[str, SourceTrace]], words: str) -> str:
    """How often each method has what, such as "base: 5 PNG; MPD: 4 JPEG ...", the most frequent first."""
    counts = {name: Counter(getattr(row[name], words) for row in rows) for name in rows[0]}
    return "; ".join(
        f"{name}: {', '.join(f'{number} {value}' for value, number in of.most_common(3))}"
        + (f" and {len(of) - 3} others" if len(of) > 3 else "")
        for name, of in counts.items()
    )
