"""Weights of the metrics' networks: locate or download, read, load and fingerprint them."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.utils.hub import failure

HUB_FILE = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[^:]+)")
HUB_FOLDER = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)")
SHOWN = 3  # names listed in a message; the rest are counted


@dataclass(frozen=True)
class WeightsSource:
    """Default source of a metric's weights.

    Attributes:
        metric: name of the metric for messages.
        option: setting that overrides the source, such as `hps.weights`.
        hub: original on the Hugging Face hub: `owner/name:file`, or `owner/name` for a folder.
        size: size of the download for messages.
        files: name patterns of the files to use in a folder; empty if the weights are a single file.
    """

    metric: str
    option: str
    hub: str
    size: str
    files: tuple[str, ...] = ()

    def find(self, given: str | None = None, section: str = "") -> Path:
        """Local path of a given path or hub id; by default of the original, downloaded on first use.

        `section` is what the option's name begins with in the recipe, such as `evaluate.`.

        Raises:
            WeightsError: not found and could not be downloaded; names the source and the option to set.
        """
        found = self._local(given, section)
        if isinstance(found, Path):
            return found
        try:
            return self._download(*found)
        except (OSError, ValueError) as error:  # base classes of hub and network errors
            raise self._unavailable(error, given, found[0], section) from error

    def check(self, given: str | None = None, section: str = "") -> None:
        """Check what `find` would do, and download nothing.

        Raises:
            WeightsError: not found here, and the hub hasn't got it or can't be asked.
        """
        found = self._local(given, section)
        if isinstance(found, Path):
            return
        from huggingface_hub import HfApi

        try:
            self._download(*found, local_files_only=True)
        except (OSError, ValueError):
            try:
                HfApi().model_info(found[0], timeout=5.0)
            except Exception as error:  # of the network, of the hub, or its offline mode
                raise self._unavailable(error, given, found[0], section) from error

    def _local(self, given: str | None, section: str) -> Path | tuple[str, str | None]:
        """The path that was given, if it is there; or a hub's repository and the file in it, None for a folder."""
        place = given or self.hub
        path = Path(place).expanduser()
        if path.is_dir() if self.files else path.is_file():
            return path
        hub = (HUB_FOLDER if self.files else HUB_FILE).fullmatch(place)
        if hub is None:
            kind, form = ("folder", "owner/name") if self.files else ("file", "owner/name:file")
            raise WeightsError(
                f"{section}{self.option} must be a {kind} or a hub id such as {form}; there is no {kind} {place!r}"
            )
        return hub["repository"], None if self.files else hub["file"]

    def _unavailable(self, error: Exception, given: str | None, repository: str, section: str) -> WeightsError:
        return WeightsError(
            f"{self.metric} needs {given or self.hub} ({self.size}, https://huggingface.co/{repository}), which could "
            f"not be downloaded; give the path of a copy as {section}{self.option}=PATH ({failure(error, repository)})"
        )

    def files_of(self, folder: Path) -> list[Path]:
        """Files of a folder that match `files`, sorted by name."""
        return sorted({path for pattern in self.files for path in folder.glob(pattern)})

    def _download(self, repository: str, file: str | None, *, local_files_only: bool = False) -> Path:
        from huggingface_hub import hf_hub_download, snapshot_download

        alone = local_files_only
        if file is None:
            return Path(snapshot_download(repository, allow_patterns=list(self.files), local_files_only=alone))
        return Path(hf_hub_download(repository, file, local_files_only=alone))


def fingerprint(preprocessing: str, files: Iterable[Path]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of the preprocessing's name and the files' SHA-256 hashes."""
    digest = hashlib.sha256(preprocessing.encode())
    for path in files:
        status = path.stat()
        digest.update(_sha256(path.absolute(), status.st_mtime_ns, status.st_size))
    return digest.hexdigest()[:12]


@lru_cache(maxsize=64)
def _sha256(path: Path, _mtime: int, _size: int) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_state_dict(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """Read a state dict saved with `torch.save`, optionally nested under a key.

    Only tensors and plain values are unpickled, so that a file can't run code.

    Raises:
        WeightsError: the file can't be read, or isn't a state dict.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling errors share no base class
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: expected weights as torch.save writes them; {first}") from error
    state = stored.get(key) if key is not None and isinstance(stored, dict) else stored
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        where = "" if key is None else f" under the key {key!r}"
        raise WeightsError(f"{path}: expected tensors by name{where}")
    return state


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    """Load a state dict into a network, cast to the network's dtype.

    Raises:
        WeightsError: a name is missing or unknown, or a shape differs; lists the first of each.
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
