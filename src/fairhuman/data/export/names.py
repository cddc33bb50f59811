"""Names of files out of keys: every key gets a name of its own, on every system."""

import re
import unicodedata
from collections import Counter

from fairhuman.data.sources.folder import PICTURE_SUFFIXES

LONGEST = 120  # bytes: with the longest ending a name stays below the 255 of most file systems
_UNSAFE = re.compile(r'[\s./\\:*?"<>|%#&~\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]+')
# Hugging Face `datasets` takes such a word between signs or digits for the name of a split (its `data_files.py`).
_SPLIT = re.compile(
    r"(?<![^-._ 0-9])(train|training|test|testing|eval|evaluation|dev|val|valid|validation)(?![^-._ 0-9])",
    re.IGNORECASE,
)


class Names:
    """Gives names to keys, one after another; the same keys in the same order get the same names."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()

    def of(self, key: str) -> str:
        """A name without dots, folders and signs that mean something, told apart from all before also by systems
        that take capital letters, or letters put together in another way, for the same.
        """
        name = safe_name(key)
        while self._times[_folded(name)]:
            self._times[_folded(name)] += 1
            name = f"{safe_name(key)}-{self._times[_folded(name)]}"
        self._times[_folded(name)] += 1
        return name


def safe_name(key: str) -> str:
    """A key as a file's name without an ending: letters and digits of any script stay."""
    stem, dot, suffix = key.rpartition(".")
    text = stem if dot and f".{suffix.lower()}" in PICTURE_SUFFIXES else key
    text = _UNSAFE.sub("_", text.encode("utf-8", "replace").decode("utf-8"))
    text = _SPLIT.sub(r"\1x", text).lstrip("_-").rstrip("_")
    return text.encode("utf-8")[:LONGEST].decode("utf-8", "ignore") or "picture"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())
