"""File names from keys: unique and valid on every file system."""

import re
import unicodedata
from collections import Counter

from fairhuman.data.sources.folder import PICTURE_SUFFIXES

MAX_BYTES = 120  # with the longest suffix, a name stays below the 255 bytes of most file systems
_UNSAFE = re.compile(r'[\s./\\:*?"<>|%#&~\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ufeff]+')
# Hugging Face `datasets` (`data_files.py`) takes such a word between separators or digits for a split name.
_SPLIT = re.compile(
    r"(?<![^-._ 0-9])(train|training|test|testing|eval|evaluation|dev|val|valid|validation)(?![^-._ 0-9])",
    re.IGNORECASE,
)


class Names:
    """Assigns names to keys one by one; the same keys in the same order get the same names."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def of(self, key: str) -> str:
        """A name without dots, folders and special characters.

        It differs from all earlier names, also on file systems that ignore case or Unicode normalisation.
        """
        name = safe_name(key)
        while self._counts[_folded(name)]:
            self._counts[_folded(name)] += 1
            name = f"{safe_name(key)}-{self._counts[_folded(name)]}"
        self._counts[_folded(name)] += 1
        return name


def safe_name(key: str) -> str:
    """A key as a file name without suffix; letters and digits of any script are kept."""
    stem, dot, suffix = key.rpartition(".")
    text = stem if dot and f".{suffix.lower()}" in PICTURE_SUFFIXES else key
    text = _UNSAFE.sub("_", text.encode("utf-8", "replace").decode("utf-8"))
    text = _SPLIT.sub(r"\1x", text).lstrip("_-").rstrip("_")
    return text.encode("utf-8")[:MAX_BYTES].decode("utf-8", "ignore") or "picture"


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())
