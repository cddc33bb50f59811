"""ONNX files by path or hub id, and inference sessions for them."""

import mmap
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from fairhuman.detect.detection import DetectorError
from fairhuman.utils.digest import content_digest, file_digest
from fairhuman.utils.hub import failure

HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[^:]+\.onnx)")
# An entry of a tensor's `external_data` in protobuf: the key `location`, then the length of its value in 1 or 2 bytes.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x00-\x7f]|[\x80-\xff][\x00-\x7f])", re.DOTALL)
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")  # by preference


def find_model(name: str) -> Path:
    """Path of a local ONNX file, or of one from the Hugging Face hub (`owner/name:file.onnx`), downloaded on first use.

    Raises:
        DetectorError: the file doesn't exist, or the hub doesn't have it or can't be reached.
    """
    path = Path(name)
    hub = HUB_ID.fullmatch(name)
    if path.is_file() or hub is None:
        if not path.is_file():
            raise DetectorError(
                f"{name}: expected an ONNX file, or a hub id such as owner/name:file.onnx; no such file"
            )
        return path
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub["repository"], hub["file"]))
    except (OSError, ValueError) as error:  # base classes of the hub's and the network's errors
        why = failure(error, hub["repository"])
        raise DetectorError(
            f"{name}: could not be downloaded; check the name and the network, or give the path of a file ({why})"
        ) from error


def hashed_file_name(path: Path) -> str:
    """Name of a model file as stored in a data set, with the start of its SHA-256: `face.onnx@1f2e3d4c`.

    Where the model keeps weights in other files, theirs are part of it.
    """
    status = path.stat()
    files = (path, *_weight_files(path, status.st_mtime_ns, status.st_size))
    states = [file.stat() for file in files]
    return _hashed_name(files, tuple((state.st_mtime_ns, state.st_size) for state in states))


@lru_cache(maxsize=16)
def _hashed_name(files: tuple[Path, ...], _: tuple[tuple[int, int], ...]) -> str:
    digests = [file_digest(file) for file in files]
    whole = digests[0] if len(digests) == 1 else content_digest(*(digest.encode() for digest in digests))
    return f"{files[0].name}@{whole[:8]}"


@lru_cache(maxsize=16)
def _weight_files(path: Path, _mtime: int, size: int) -> tuple[Path, ...]:
    """The files below a model's folder in which its tensors are ("external data"), in the order of their names.

    https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
    """
    if not size:
        return ()
    names = set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for entry in _LOCATION.finditer(content):
            low, high = entry[1][0], entry[1][1:]
            length = low if not high else (low & 0x7F) | high[0] << 7
            names.add(os.path.normpath(content[entry.end() : entry.end() + length].decode("utf-8", "replace")))
    below = [name for name in sorted(names) if "\0" not in name and not name.startswith(("..", "/"))]
    return tuple(path.parent / name for name in below if (path.parent / name).is_file())


def import_onnxruntime() -> Any:
    """Import `onnxruntime`.

    Raises:
        DetectorError: onnxruntime isn't installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DetectorError(f"ONNX detectors need onnxruntime: pip install 'fairhuman[detect]' ({error})") from error
    return onnxruntime


def open_session(path: Path) -> Any:
    """Open an inference session, on CUDA if available, else on one CPU thread (processes share the work).

    Raises:
        DetectorError: onnxruntime is missing, or can't run the file.
    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only; onnxruntime's warnings don't help a user
    available = runtime.get_available_providers()
    try:
        return runtime.InferenceSession(
            str(path), options, providers=[provider for provider in PROVIDERS if provider in available]
        )
    except Exception as error:  # onnxruntime's errors share no base class
        raise DetectorError(f"{path}: not a valid ONNX model: {' '.join(str(error).split())}") from error


def describe_signature(session: Any) -> str:
    """Inputs and outputs of a model as text: `images float [1, 3, 640, 640] → output0 float [1, 84, 8400]`."""
    signatures = (
        ", ".join(f"{value.name} {value.type[7:-1]} {value.shape}" for value in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    return " → ".join(signatures)
