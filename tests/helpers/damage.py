"""Damage of files, as a disk does it."""

from pathlib import Path


def flip(path: Path, at: int | None = None, bit: int = 0) -> None:
    """Flip one bit of a file: of the byte at a position, by default of the one in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1 << bit
    path.write_bytes(content)


def flip_in(path: Path, part: bytes) -> None:
    """Flip one bit in the middle of a part of a file, where it occurs first."""
    flip(path, path.read_bytes().index(part) + len(part) // 2)
