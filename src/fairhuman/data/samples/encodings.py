"""Tensors that took a network to make, kept on disk by name: latents of views, embeddings of captions.

A folder has numbered safetensors files, memory-mapped, each complete or not there, so that any number of processes may
read while others write. A tensor's name says all that it depends on but the network, which has a folder of its own; so
nothing ever has to be taken back. What is new waits in main memory until it is as much as this process wrote
before: the files are few, and a killed process loses at most half of its work.
"""

import errno
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairhuman.utils.files import write_atomically

SHARD = 256 * 2**20  # bytes of a file at most, give or take a tensor
FIRST = 2**20  # bytes of a process's first file
RESERVE = 2**30  # bytes that are left free for checkpoints


class Encodings:
    """The tensors of one folder, by key; trouble with the disk is kept in `notes` and never raised.

    Args:
        folder: made when there is something to write.

    Attributes:
        added: tensors that were added here.
        changed: those that were added although their origin had one of the same kind: its content has changed.
        full: nothing more is written.
        notes: what a user should hear of, each thing once.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added = 0
        self.changed = 0
        self.full = False
        self.notes: list[str] = []
        self._places: dict[str, tuple[Any, str]] = {}  # by key: a mapped file, and the name in it
        self._origins: set[str] = set()
        self._opened: set[Path] = set()
        self._modified = -1
        self._waiting: dict[str, Tensor] = {}  # by name
        self._waiting_keys: dict[str, str] = {}
        self._size = 0
        self._written = 0
        self._look()

    def __len__(self) -> int:
        """Number of tensors on disk and waiting."""
        return len(self._places.keys() | self._waiting_keys.keys())

    def __reduce__(self) -> tuple[type["Encodings"], tuple[Path]]:
        """Mapped files can't be sent to another process, which opens its own."""
        return Encodings, (self.folder,)

    def get(self, key: str) -> Tensor | None:
        """The tensor of a key, also if another process has written it meanwhile; None if there is none."""
        name = self._waiting_keys.get(key)
        if name is not None:
            return self._waiting[name]
        if key not in self._places:
            self._look()
        if key not in self._places:
            return None
        file, name = self._places[key]
        tensor: Tensor = file.get_tensor(name)
        return tensor

    def add(self, key: str, tensor: Tensor, origin: str = "") -> None:
        """Keep a tensor. Keys and origins are texts without spaces.

        Args:
            key: all that the tensor depends on.
            tensor: on the CPU, contiguous.
            origin: the same for the same thing, such as a file, whatever its content.

        """
        if key in self._waiting_keys or key in self._places:
            return
        if origin in self._origins:
            self.changed += 1
            self._origins.discard(origin)  # told once
        if self.full:
            return
        self.added += 1
        name = f"{key} {origin}".rstrip()
        self._waiting[name], self._waiting_keys[key] = tensor, name
        self._size += tensor.nbytes
        if self._size >= min(SHARD, max(FIRST, self._written)):
            self.flush()

    def flush(self) -> None:
        """Write what waits; where that fails nothing more is kept."""
        if not self._waiting:
            return
        try:
            self._write()
        except (OSError, SafetensorError) as error:  # the latter for quotas and the like, not for a full disk
            self.full = True
            why = getattr(error, "strerror", None) or error
            self.notes.append(f"{self.folder}: can't be written ({why}); what isn't in it yet is computed each time")
        self._waiting, self._waiting_keys, self._size = {}, {}, 0

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / ".lock"
        lock.touch()  # says why where that can't be, which the lock doesn't
        with FileLock(lock):
            self._look()  # another process may have made the same
            new = {name: self._waiting[name] for key, name in self._waiting_keys.items() if key not in self._places}
            size = sum(tensor.nbytes for tensor in new.values())
            if shutil.disk_usage(self.folder).free < size + RESERVE:
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {RESERVE / 2**20:.0f} MiB are left free")
            if new:
                number = max((int(path.stem) for path in self._files()), default=-1) + 1
                path = self.folder / f"{number:05}.safetensors"
                write_atomically(path, partial(save_file, new))
                self._open(path)
        self._written += size

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.safetensors") if path.stem.isdecimal())

    def _look(self) -> None:
        """Open files that have come since the last look."""
        try:
            modified = self.folder.stat().st_mtime_ns
        except OSError:
            return
        if modified != self._modified:
            self._modified = modified
            for path in self._files():
                if path not in self._opened:
                    self._open(path)

    def _open(self, path: Path) -> None:
        self._opened.add(path)
        try:
            file: Any = safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            self.notes.append(f"{path}: damaged, not used; delete it ({error})")
            return
        for name in file.keys():  # noqa: SIM118, it isn't a mapping
            key, _, origin = name.partition(" ")
            self._places.setdefault(key, (file, name))
            self._origins.add(origin)
        self._origins.discard("")


def others(folder: Path) -> int:
    """Number of tensors in folders beside `folder`, of the same kind by another network.

    Folders of a kind are named KIND-FINGERPRINT.
    """
    kind = folder.name.partition("-")[0]
    return sum(len(Encodings(path)) for path in folder.parent.glob(f"{kind}-*") if path != folder and path.is_dir())
