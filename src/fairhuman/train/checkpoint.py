"""Checkpoints: one folder per step, written atomically, with digests by which damage is noticed."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairhuman.errors import TrainingError
from fairhuman.train.resume import checkpoint_folders, checkpoint_step
from fairhuman.utils.digest import DamageError, check_folder, write_sums
from fairhuman.utils.files import remove_atomically, write_atomically

State = tuple[dict[str, Tensor], dict[str, Any]]


class Checkpoints:
    """The folder `checkpoints/` of a run.

    Each checkpoint holds `trainable.safetensors`, the trained weights, and `state.pt`, all else that the next step
    depends on: optimiser, learning rate, strategy, loss scale, moving average. Data order and noise have no state.
    `SHA256SUMS` holds the digests of both.

    Attributes:
        notes: what `load` has to tell the user.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self.notes: list[str] = []

    def save(self, step: int, trainable: dict[str, Tensor], state: dict[str, Any]) -> Path:
        """Write the checkpoint of a step; then delete all but the newest `keep`, and damaged ones of later steps."""

        def write(partial: Path) -> None:
            partial.mkdir()
            save_file(trainable, partial / "trainable.safetensors")
            torch.save({"step": step, **state}, partial / "state.pt")
            write_sums(partial)

        path = self.folder / f"step-{step:07d}"
        write_atomically(path, write)
        kept = [one for one in self.list() if checkpoint_step(one) <= step][-self.keep :]
        for old in self.list():
            if old not in kept:
                remove_atomically(old)
        return path

    def list(self) -> list[Path]:
        """Return the complete checkpoints, oldest first."""
        return checkpoint_folders(self.folder)

    def load(self) -> State | None:
        """Return trained weights and state of the newest checkpoint that isn't damaged; None if there is none at all.

        Raises:
            TrainingError: all are damaged, or one is whole and can't be read; names the folder and what to do.
        """
        damaged: list[str] = []
        for folder in reversed(self.list()):
            try:
                found = self.read(folder)
            except DamageError as error:
                damaged.append(str(error))
                continue
            if damaged:
                self.notes.append(f"{'; '.join(damaged)}. The run goes on from the checkpoint before: {folder.name}")
            return found
        if damaged:
            raise TrainingError(
                f"no checkpoint of this run can be used: {'; '.join(damaged)}. Restore one from a backup, or delete "
                f"{self.folder} to start anew"
            )
        return None

    def read(self, folder: Path) -> State:
        """Read a checkpoint; one that an earlier version wrote has no digests, and is read unchecked.

        One of another step than its folder's name says, as after a wrong copy, counts as damaged.

        Raises:
            DamageError: it isn't what was written.
            TrainingError: it is whole and can't be read.
        """
        checked = check_folder(folder)
        try:
            trainable = load_file(folder / "trainable.safetensors")
            state = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        except Exception as error:  # what reading can raise has no common base
            why = (str(error).splitlines() or [""])[0][:200]
            if checked:
                raise TrainingError(
                    f"checkpoint {folder}: can't be read ({type(error).__name__}: {why}); delete this folder to resume "
                    "from the previous one"
                ) from error
            raise DamageError(f"{folder}: can't be read ({type(error).__name__}: {why})") from error
        if state.get("step") != checkpoint_step(folder):
            raise DamageError(
                f"{folder}: is not what was written: it holds step {state.get('step')}, not {checkpoint_step(folder)}"
            )
        if not checked:
            self.notes.append(f"{folder}: has no digests, as an earlier version wrote it; it is used unchecked")
        return trainable, state
