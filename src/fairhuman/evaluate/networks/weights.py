"""Weights of a metric's network: found on disk or on the Hugging Face hub, read, filled in, and told apart."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from fairhuman.evaluate.networks.extractor import WeightsError

HUB_FILE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[^:]+)")
HUB_FOLDER = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)")
SHOWN = 3  # names of a fault in a message; the rest is counted


@dataclass(frozen=True)
class WeightsSource:
    """Where the weights of a metric come from when nobody says otherwise.

    Attributes:
        metric: name for people.
        option: setting that gives another place, such as `hps.weights`.
        hub: the original on the Hugging Face hub: `owner/name:file`, or `owner/name` of a folder.
        size: of what is downloaded, for people.
        files: patterns of the names that count in a folder; none if the weights are one file.

    """

    metric: str
    option: str
    hub: str
    size: str
    files: tuple[str, ...] = ()

    def find(self, given: str | None = None) -> Path:
        """The file or folder of a local path or hub id; without one, of the original, downloaded when first needed.

        Raises:
            WeightsError: it isn't there and can't be downloaded; says what is wanted, and which option to give.

        """
        place = given or self.hub
        path = Path(place).expanduser()
        if path.is_dir() if self.files else path.is_file():
            return path
        hub = (HUB_FOLDER if self.files else HUB_FILE).fullmatch(place)
        if hub is None:
            kind, form = ("folder", "owner/name") if self.files else ("file", "owner/name:file")
            raise WeightsError(
                f"{self.option} must be a {kind} or a hub id such as {form}; there is no {kind} {place!r}"
            )
        try:
            return self._download(**hub.groupdict())
        except (OSError, ValueError) as error:  # the hub's errors and those of the network are among these
            why = " ".join(str(error).split())
            raise WeightsError(
                f"{self.metric} needs {place} ({self.size}, https://huggingface.co/{hub['repository']}), which can't "
                f"be had; give the path of a copy as {self.option}=PATH ({why})"
            ) from error

    def files_of(self, folder: Path) -> list[Path]:
        """Files of a folder that count, by name."""
        return sorted({path for pattern in self.files for path in folder.glob(pattern)})

    def _download(self, repository: str, file: str | None = None) -> Path:
        from huggingface_hub import hf_hub_download, snapshot_download

        if file is None:
            return Path(snapshot_download(repository, allow_patterns=list(self.files)))
        return Path(hf_hub_download(repository, file))


def fingerprint(preprocessing: str, files: Iterable[Path]) -> str:
    """First 12 hexadecimal digits of the SHA-256 over the preprocessing's version and the files' own SHA-256."""
    digest = hashlib.sha256(preprocessing.encode())
    for path in files:
        status = path.stat()
        digest.update(_sha256(path.absolute(), status.st_mtime_ns, status.st_size))
    return digest.hexdigest()[:12]


@lru_cache(maxsize=64)
def _sha256(path: Path, _mtime: int, _size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_state(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Tensors by name from a file of `torch.save`; with a key, those that the file has under it.

    Only tensors and plain values are read: a file can't run code.

    Raises:
        WeightsError: the file can't be read so, or holds something else.

    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the errors of unpickling share no base class
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: expected weights as torch.save writes them; {first}") from error
    state = stored.get(key) if key is not None and isinstance(stored, dict) else stored
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        where = "" if key is None else f" under the key {key!r}"
        raise WeightsError(f"{path}: expected tensors by name{where}")
    return state


def fill(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Put the tensors of a file into a network, in the network's own number type.

    Raises:
        WeightsError: a name is missing or unknown, or a shape differs; names the first of each.

    """
    own = network.state_dict()
    faults = {
        "missing": [name for name in own if name not in state],
        "unknown": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
    }
    if any(faults.values()):
        found = "; ".join(f"{fault}: {_listed(names)}" for fault, names in faults.items() if names)
        raise WeightsError(f"{path}: these aren't weights of {type(network).__name__}; {found}")
    network.load_state_dict(state)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
