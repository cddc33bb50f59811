"""Captions that are longer than the base reads: counted when a run starts, and in its dry run."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from fairhuman.bases.base import Base, base_class
from fairhuman.bases.sdxl import SDXL
from fairhuman.data.caption.tokens import load_tokenizers
from fairhuman.models.locations import is_file, location_of, name_of
from fairhuman.utils.clip_tokenizer import clip_tokenizer


def cut_captions(base: Base, captions: Sequence[str]) -> list[str]:
    """Return a line that counts the captions whose end isn't read; none if all are read whole."""
    lengths = base.lengths(captions)
    cut = [caption for caption, length in zip(captions, lengths, strict=True) if length > base.limit]
    if not cut:
        return []
    count = "1 caption is" if len(cut) == 1 else f"{len(cut)} captions are"
    return [f"{count} longer than the {base.limit} tokens that the model reads, and cut, as {cut[0][:60]!r}"]


def reader_of(model: str) -> Base | None:
    """Return a model's base with its tokenizers alone; None where they aren't on this machine.

    Files of SDXL and its models on the hub have CLIP's words, which ship with the package.

    Raises:
        OSError, ValueError: a tokenizer is missing or damaged.
        ModelError: a file that isn't an SDXL.
    """
    name, folder = name_of(model), Path(location_of(model))
    if folder.is_dir():
        return base_class(name).reader(str(folder))
    if name.flow:
        return None
    first, second = load_tokenizers(model) if is_file(model) else (clip_tokenizer(), clip_tokenizer(pad="!"))
    return SDXL(SimpleNamespace(tokenizer=first, tokenizer_2=second))
