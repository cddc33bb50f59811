"""Prompts of commands: a text file with one a line, or the captions of a data set such as a validation set."""

from collections.abc import Sequence
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord
from fairhuman.utils.files import read_prompts

DATA_FILES = (".parquet", ".tar")  # single files that are data sets
METADATA_FILES = (".jsonl", ".csv", ".json")  # files of data sets that aren't one alone


def prompts_at(place: Path) -> list[str]:
    """The lines of a text file, or the captions of a data set in its order, as reviewed.

    The k-th prompt is that of the k-th record of `read_source`, so the set may be given as reference or condition too.

    Raises:
        DataError: the place can't be read, holds no prompt, or a record has no caption.
    """
    if place.is_dir() or place.suffix.lower() in DATA_FILES:
        return captions_of(read_source(place, (), SourceSettings(), LoadReport()), place)
    if place.suffix.lower() in METADATA_FILES:
        raise DataError(
            f"{place}: prompts are a text file with one a line, or a data set: give its folder, {place.parent}"
        )
    return read_prompts(place)


def prompt_numbers(pictures: int, prompts: Sequence[str], shown: str) -> list[int]:
    """Which prompt each picture of a folder is for, where the pictures don't say: N / P consecutive ones per prompt.

    They are in natural order of their names (`natural_path_order`). Those that can't be read count too, so that a
    damaged one doesn't move the prompts of the others.

    Args:
        pictures: N, their number.
        prompts: P prompts.
        shown: the pictures, for the message.

    Raises:
        DataError: P doesn't divide N.
    """
    if not prompts or pictures % len(prompts):
        raise DataError(f"{shown} can't be divided evenly among {len(prompts)} prompts")
    return [place * len(prompts) // pictures for place in range(pictures)]


def captions_of(records: Sequence[HumanRecord], place: Path) -> list[str]:
    """The captions of records from a data set, each on one line.

    Raises:
        DataError: a record has none.
    """
    captions = [" ".join(record.caption.split()) for record in records]
    empty = [record.key for record, caption in zip(records, captions, strict=True) if not caption]
    if empty:
        raise DataError(
            f"{place}: prompts need a caption for every record, {len(empty)} of {len(records)} have none, such as "
            f"{empty[0]}"
        )
    return captions
