"""Provenance of a measurement: date, machine and package versions."""

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("fairhuman", "torch", "diffusers", "peft")


def origin(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return date (UTC), machine and versions, JSON-ready.

    Args:
        packages: names of further packages whose versions are recorded.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "gpu": device,
            "system": platform.platform(terse=True),
            "threads": torch.get_num_threads(),
        },
        "versions": {"python": platform.python_version(), **{name: version(name) for name in (*PACKAGES, *packages)}},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
