"""On-disk cache of a network's outputs: latents of views, embeddings of captions.

A folder holds numbered, memory-mapped safetensors files that are written atomically, so that any number of processes
can read while others write. A tensor's name covers all that it depends on except the network, which has its own
folder; so entries never become invalid. New tensors are buffered in main memory until their size reaches that of all
tensors written so far by this process: the files are few, and a killed process loses at most half of its work.

A file's metadata has a digest of each tensor with its name and the folder's, which is checked when the tensor is read.
A damaged tensor counts as missing, so it is computed again and written to a new file, and there it is found from then
on.
"""

import errno
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairhuman.utils.digest import content_digest
from fairhuman.utils.files import touch, write_atomically
from fairhuman.utils.parse import parse_json

SHARD = 256 * 2**20  # approximate maximum size of a file in bytes
FIRST = 2**20  # size of a process's first file in bytes
RESERVE = 2**30  # bytes left free on the disk for checkpoints
_DIGESTS = "bound_digests"  # the metadata with the digest of each tensor by name, as JSON
_EARLIER = "digests"  # the same in files of an earlier version, whose digests don't cover the folder


class Encodings:
    """The tensors of one folder, by key. Disk errors are recorded in `notes`, never raised.

    Attributes:
        added: number of tensors added by this object.
        changed: number of these whose origin had a tensor already, so its content has changed.
        damaged: number of tensors found damaged by this object, which are missing since.
        unchecked: number of tensors on disk without a digest, as an earlier version wrote them.
        unbound: number of tensors on disk whose digests don't say which network they are of, as those of the version
            after that.
        full: whether writing has stopped.
        notes: messages for the user, each once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.added = 0
        self.changed = 0
        self.damaged = 0
        self.unchecked = 0
        self.unbound = 0
        self.full = False
        self.notes: list[str] = []
        self._locations: dict[str, _Location] = {}
        self._origins: set[str] = set()
        self._opened: set[Path] = set()
        self._modified = -1
        self._pending: dict[str, Tensor] = {}  # by name
        self._pending_names: dict[str, str] = {}  # by key
        self._size = 0
        self._written = 0
        self._open_new_files()

    def __len__(self) -> int:
        """Number of tensors on disk and pending."""
        return len(self._locations.keys() | self._pending_names.keys())

    def __contains__(self, key: str) -> bool:
        """Whether there is a tensor of a key, without reading it: it may be damaged."""
        if key not in self._pending_names and key not in self._locations:
            self._open_new_files()
        return key in self._pending_names or key in self._locations

    def __reduce__(self) -> tuple[type["Encodings"], tuple[Path]]:
        """Pickle only the folder, because another process must map the files itself."""
        return Encodings, (self.folder,)

    def get(self, key: str) -> Tensor | None:
        """The tensor of a key, including tensors written meanwhile by other processes; None: missing or damaged."""
        name = self._pending_names.get(key)
        if name is not None:
            return self._pending[name]
        if key not in self._locations:
            self._open_new_files()
        if key not in self._locations:
            return None
        found = self._locations[key]
        tensor = found.read()
        if tensor is None:
            self.damaged += 1
            del self._locations[key]
            self._origins.discard(found.name.partition(" ")[2])  # what is added next isn't a changed picture
        return tensor

    def add(self, key: str, tensor: Tensor, origin: str = "") -> None:
        """Add a tensor, on the CPU and contiguous. Keys and origins are texts without spaces.

        The key identifies all that the tensor depends on; the origin identifies its input, such as a file, regardless
        of its content.
        """
        if key in self._pending_names or key in self._locations:
            return
        if origin in self._origins:
            self.changed += 1
            self._origins.discard(origin)  # count it once
        if self.full:
            return
        self.added += 1
        name = f"{key} {origin}".rstrip()
        self._pending[name], self._pending_names[key] = tensor, name
        self._size += tensor.nbytes
        if self._size >= min(SHARD, max(FIRST, self._written)):
            self.flush()

    def flush(self) -> None:
        """Write pending tensors; after an error, nothing more is written."""
        if not self._pending:
            return
        try:
            self._write()
        except (OSError, SafetensorError) as error:  # the latter for quotas and the like, not for a full disk
            self.full = True
            why = getattr(error, "strerror", None) or error
            self.notes.append(f"{self.folder}: can't be written ({why}); tensors missing in it are computed each time")
        self._pending, self._pending_names, self._size = {}, {}, 0

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / ".lock"
        touch(lock)  # raises an error with the reason, which FileLock doesn't
        with FileLock(lock):
            self._open_new_files()  # another process may have written the same tensors
            new = {name: self._pending[name] for key, name in self._pending_names.items() if key not in self._locations}
            size = sum(tensor.nbytes for tensor in new.values())
            if shutil.disk_usage(self.folder).free < size + RESERVE:
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {RESERVE / 2**20:.0f} MiB are left free")
            if new:
                number = max((int(path.stem) for path in self._files()), default=-1) + 1
                path = self.folder / f"{number:05}.safetensors"
                digests = {name: _digest(self.folder.name, name, tensor) for name, tensor in new.items()}
                write_atomically(path, partial(save_file, new, metadata={_DIGESTS: json.dumps(digests)}))
                self._open(path)
        self._written += size

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("*.safetensors") if path.stem.isdecimal())

    def _open_new_files(self) -> None:
        """Open files that were written since the last call."""
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
            folder, digests = self._digests_of(file.metadata())
            names = file.keys()
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            self.notes.append(f"{path}: damaged, not used; delete it ({error})")
            return
        for name in names:
            key, _, origin = name.partition(" ")
            digest = digests.get(name, "") if digests is not None else None
            self.unchecked += digest is None
            self.unbound += digest is not None and folder is None
            # of two, the later one replaces a damaged one
            self._locations[key] = _Location(file, name, folder, digest)
            self._origins.add(origin)
        self._origins.discard("")

    def _digests_of(self, metadata: Mapping[str, str] | None) -> tuple[str | None, dict[str, str] | None]:
        """The digests in a file's metadata, None: it has none; before them the name that they cover besides.

        Raises:
            ValueError, TypeError: the metadata is damaged.
        """
        if metadata is None:
            return None, None
        for kind, folder in ((_DIGESTS, self.folder.name), (_EARLIER, None)):
            if kind in metadata:
                return folder, dict(parse_json(metadata[kind]))
        raise ValueError(f"its metadata has no {_DIGESTS}, only {', '.join(metadata)[:80]}")


@dataclass(frozen=True)
class _Location:
    """A tensor in a mapped file, and what its digest covers; without a digest, it is read unchecked."""

    file: Any
    name: str
    folder: str | None
    digest: str | None

    def read(self) -> Tensor | None:
        """The tensor; None if it is damaged."""
        try:
            tensor: Tensor = self.file.get_tensor(self.name)
            sound = self.digest is None or self.digest == _digest(self.folder, self.name, tensor)
        except (OSError, SafetensorError, RuntimeError, ValueError, TypeError, KeyError):  # a type or shape that isn't
            return None
        return tensor if sound else None


def _digest(folder: str | None, name: str, tensor: Tensor) -> str:
    """Digest of a tensor with its name, type and shape, and with the name of its folder, None: without."""
    about = f"{name} {tensor.dtype} {tuple(tensor.shape)} "
    place = "" if folder is None else f"{folder} "
    return content_digest(f"{place}{about}".encode(), tensor.contiguous().view(torch.uint8).numpy().data)


def count_other_networks(folder: Path) -> int:
    """Number of tensors of the same kind from other networks, in folders beside `folder`.

    Folders are named KIND-FINGERPRINT.
    """
    kind = folder.name.partition("-")[0]
    return sum(len(Encodings(path)) for path in folder.parent.glob(f"{kind}-*") if path != folder and path.is_dir())
