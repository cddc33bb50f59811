"""ONNX files by path or hub id, and inference sessions for them."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from fairhuman.detect.detection import DetectorError
from fairhuman.utils.hub import failure

HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[^:]+\.onnx)")
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
    """Name of a model file as stored in a data set, with the start of its SHA-256: `face.onnx@1f2e3d4c`."""
    return _hashed_name(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _hashed_name(path: Path, _: int) -> str:
    with path.open("rb") as file:
        return f"{path.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


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
