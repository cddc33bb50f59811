"""Checkpoints: one folder per step, written atomically."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairhuman.errors import TrainingError
from fairhuman.train.resume import checkpoint_folders
from fairhuman.utils.files import remove_atomically, write_atomically


class Checkpoints:
    """The folder `checkpoints/` of a run.

    Each checkpoint holds `trainable.safetensors`, the trained weights, and `state.pt`, all else that the next step
    depends on: optimiser, learning rate, strategy, loss scale, moving average. Data order and noise have no state.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, trainable: dict[str, Tensor], state: dict[str, Any]) -> Path:
        """Write the checkpoint of a step, then delete all but the newest `keep`."""

        def write(partial: Path) -> None:
            partial.mkdir()
            save_file(trainable, partial / "trainable.safetensors")
            torch.save({"step": step, **state}, partial / "state.pt")

        path = self.folder / f"step-{step:07d}"
        write_atomically(path, write)
        for old in self.list()[: -self.keep]:
            remove_atomically(old)
        return path

    def list(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return checkpoint_folders(self.folder)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return trained weights and state of the newest checkpoint; None if there is none.

        Raises:
            TrainingError: it can't be read; names the folder and what to do.
        """
        found = self.list()
        if not found:
            return None
        try:
            trainable = load_file(found[-1] / "trainable.safetensors")
            state = torch.load(found[-1] / "state.pt", map_location="cpu", weights_only=True)
        except Exception as error:
            raise TrainingError(
                f"checkpoint {found[-1]}: can't be read ({type(error).__name__}); delete this folder to resume "
                "from the previous one"
            ) from error
        return trainable, state
