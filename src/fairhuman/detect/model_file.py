"""ONNX files by path or hub id, what runs them, and errors that say what was wrong with them."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from fairhuman.detect.detection import DetectorError

HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+):(?P<file>[^:]+\.onnx)")
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")  # the first that is there


def find_model(name: str) -> Path:
    """A local ONNX file, or one of the Hugging Face hub (`owner/name:file.onnx`), downloaded when first needed.

    Raises:
        DetectorError: no such file; or the hub has none of that name or can't be reached.

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
    except (OSError, ValueError) as error:  # the hub's errors and those of the network are among these
        why = " ".join(str(error).split())
        raise DetectorError(
            f"{name}: can't be had from the hub; check the name and the network, or give the path of a file ({why})"
        ) from error


def named_file(path: Path) -> str:
    """Name of a model for the data set, with the start of its SHA-256: `face.onnx@1f2e3d4c`."""
    return _named(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _named(path: Path, _: int) -> str:
    with path.open("rb") as file:
        return f"{path.name}@{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"


def import_onnxruntime() -> Any:
    """The module `onnxruntime`.

    Raises:
        DetectorError: it isn't installed.

    """
    try:
        import onnxruntime
    except ImportError as error:
        raise DetectorError(f"ONNX detectors need onnxruntime: pip install 'fairhuman[detect]' ({error})") from error
    return onnxruntime


def open_session(path: Path) -> Any:
    """An inference session, on CUDA where onnxruntime has it, else on one thread: work is shared out by processes.

    Raises:
        DetectorError: onnxruntime is missing, or the file isn't a model that it can run.

    """
    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors; its warnings tell a user nothing
    available = runtime.get_available_providers()
    try:
        return runtime.InferenceSession(
            str(path), options, providers=[provider for provider in PROVIDERS if provider in available]
        )
    except Exception as error:  # its errors share no base class
        raise DetectorError(f"{path}: expected an ONNX model, {' '.join(str(error).split())}") from error


def described(session: Any) -> str:
    """Inputs and outputs of a model as text: `images float [1, 3, 640, 640] → output0 float [1, 84, 8400]`."""
    sides = (
        ", ".join(f"{value.name} {value.type[7:-1]} {value.shape}" for value in values)
        for values in (session.get_inputs(), session.get_outputs())
    )
    return " → ".join(sides)
