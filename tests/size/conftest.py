"""SDXL at its true size with random weights, and the same on the small SDXL in minutes.

The true size needs 16 GB of memory, 30 GB of disk in FAIRHUMAN_SIZE_FOLDER (by default `runs/size`) and a quarter of
an hour. What is there already, such as the model and finished runs, is used again; delete the folder to begin anew.
"""

import os
from pathlib import Path

import pytest
import torch

from helpers.places import ROOT
from helpers.sizes import Place
from true_size import save_sdxl


@pytest.fixture(
    scope="session",
    params=[pytest.param("small", marks=pytest.mark.slow), pytest.param("sdxl", marks=pytest.mark.size)],
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The folder with the model in it."""
    if request.param == "small":
        found = Place("small", tmp_path_factory.mktemp("size"), 64, 4)
    else:
        found = Place("sdxl", Path(os.environ.get("FAIRHUMAN_SIZE_FOLDER", ROOT / "runs" / "size")), 256, 64)
    save_sdxl(found.model, torch.bfloat16, architecture=found.shape)
    return found
