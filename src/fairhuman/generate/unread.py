"""Prompts that are longer than a model reads: counted when pictures are drawn, and wherever they are used."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from fairhuman.report.text import plural

if TYPE_CHECKING:
    from fairhuman.bases.base import Base

READ = "tokens_read"  # text entry of a picture whose prompt has more tokens than the model reads


def read_entry(base: "Base", prompt: str) -> dict[str, str]:
    """Return the text entry of a picture: how many tokens of its prompt were read; empty if all were."""
    return {READ: str(base.limit)} if base.cuts(prompt) else {}


def unread_lines(entries: Iterable[tuple[str, Mapping[str, str]]]) -> list[str]:
    """Return a line for each number of tokens that cut prompts.

    Args:
        entries: the prompt and the text entries of each picture.
    """
    prompts, cut = set(), defaultdict[str, set[str]](set)
    for prompt, entry in entries:
        prompts.add(prompt)
        if READ in entry:
            cut[entry[READ]].add(prompt)
    return [
        f"{len(found)} of {plural(len(prompts), 'prompt')} {'is' if len(found) == 1 else 'are'} longer than the {read} "
        f"tokens that the model reads: the pictures follow the first {read} alone"
        for read, found in cut.items()
    ]


def unread_of(base: "Base", prompts: Sequence[str], suffix: str = "", negative: str = "") -> list[str]:
    """Return what `unread_lines` says of prompts that are drawn with a suffix, and a line for the negative prompt."""
    lines = unread_lines((prompt, read_entry(base, f"{prompt}{suffix}")) for prompt in prompts)
    if base.cuts(negative):
        lines.append(f"the negative prompt is longer than the {base.limit} tokens that the model reads")
    return lines
