"""The header of a safetensors file: names, types and shapes of its tensors, without reading the tensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairhuman.errors import ModelError
from fairhuman.utils.parse import parse_json

_LARGEST = 16_000_000  # bytes of a header; SDXL in one file has 0.3 MB, a LoRA's list of tags may have some more
_STARTS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"RIFF": "a WebP picture",
    b"PK\x03\x04": "a pickle or zip file, such as .ckpt or .pt, which may run code when it is loaded",
    b"\x80\x02": "a pickle file, such as .ckpt or .pt, which may run code when it is loaded",
    b"GGUF": "a GGUF file, whose weights are quantised",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself: run `git lfs pull`",
    b"<": "a web page, perhaps saved instead of the file",
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """A tensor's type, as the format names it (`F16`, `BF16`, `F32`, `F8_E4M3`, ...), and shape."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """What a header says: the file's own metadata, and its tensors by name."""

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorEntry]


def read_header(path: Path, name: str) -> SafetensorsHeader:
    """Read the header of a safetensors file, and check that the file is as long as the header says.

    File format: 8 bytes with the header's length n (little-endian), n bytes of JSON, the tensors.

    Args:
        path: the file.
        name: what the file is to the user, for messages, such as `model 'x.safetensors'`.

    Raises:
        ModelError: not a safetensors file, or cut off; in one line, with what to do.
    """
    try:
        with path.open("rb") as file:
            start = file.read(24)
            length = int.from_bytes(start[:8], "little")
            size = path.stat().st_size
            for begin, kind in _STARTS.items():
                if start.startswith(begin) and start[8:9] != b"{":
                    raise ModelError(f"{name}: expected a .safetensors file, found {kind}")
            if 8 + length <= size and length > _LARGEST and start[8:9] == b"{":
                raise ModelError(f"{name}: its header must have at most {_LARGEST:,} bytes, found {length:,}")
            if len(start) < 8 or length > _LARGEST or start[8:9] != b"{":
                raise ModelError(f"{name}: expected a .safetensors file, found another format ({size:,} bytes)")
            file.seek(8)
            text = file.read(length)
    except OSError as failed:
        raise ModelError(f"{name}: can't be read: {failed.strerror or failed}") from failed
    cut = f"{name}: the file is cut off: it has {size:,} bytes, its header describes {{:,}}. Copy or download it again"
    if len(text) < length:
        raise ModelError(cut.format(8 + length))
    try:
        header = parse_json(text)
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        tensors = {key: TensorEntry(str(entry["dtype"]), _whole(entry["shape"])) for key, entry in header.items()}
        end = max((_whole(entry["data_offsets"])[1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as failed:
        raise ModelError(f"{name}: its safetensors header is damaged; copy or download it again") from failed
    if 8 + length + end > size:
        raise ModelError(cut.format(8 + length + end))
    return SafetensorsHeader(metadata, tensors)


def _whole(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise TypeError("expected a list of whole numbers")
    return tuple(values)


def sort_header(path: Path) -> None:
    """Sort the metadata in a safetensors header, which is written in random order; equal LoRAs must give equal files.

    File format: 8 bytes with the header's length (little-endian), the JSON header padded with spaces, the data.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = parse_json(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "sorting must not lengthen the header"
        file.seek(8)
        file.write(text.ljust(length))
