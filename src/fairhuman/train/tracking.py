"""Logging of a run: a JSON line per step, TensorBoard and, if set, Weights & Biases."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from fairhuman.errors import TrainingError
from fairhuman.utils.files import write_text
from fairhuman.utils.journal import open_log, read_rows, write_rows


class Tracker:
    """Writes `metrics.jsonl`, `validation.jsonl` and `tensorboard/` in a run's folder, and to Weights & Biases.

    What was logged of steps after `step`, from which the run resumes, is removed; all of it if `step` is 0.
    """

    def __init__(self, run: Path, step: int, wandb: str | None, settings: Mapping[str, Any]) -> None:
        self.run = run
        first = step + 1 if step else 0  # without a checkpoint the run starts over
        for name in ("metrics.jsonl", "validation.jsonl"):
            _keep_before(run / name, first)
        self._wandb = _start_wandb(wandb, run, settings, step > 0) if wandb else None
        self.validated = {row["step"] for row in read_rows(run / "validation.jsonl", step=int)}
        self._metrics = open_log(run / "metrics.jsonl")
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=first)

    def metrics(self, step: int, values: Mapping[str, float | int | bool | None]) -> None:
        """Write the metrics of a step; None becomes null."""
        self._metrics.write(_line({"step": step, **values}))
        self._metrics.flush()
        self._scalars(step, values)

    def validation(self, step: int, line: Mapping[str, Any], values: Mapping[str, float | None]) -> None:
        """Write an evaluation; its values are logged as `validation/NAME`."""
        with open_log(self.run / "validation.jsonl") as file:
            file.write(_line({"step": step, **line}))
        self.validated.add(step)
        self._scalars(step, {f"validation/{name}": value for name, value in values.items()})

    def close(self) -> None:
        """Flush and close all logs."""
        self._metrics.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _scalars(self, step: int, values: Mapping[str, float | int | bool | None]) -> None:
        known = {name: float(value) for name, value in values.items() if value is not None}
        for name, value in known.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(known, step=step)


def _line(values: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(values, allow_nan=False)}\n".encode()


def _keep_before(path: Path, step: int) -> None:
    """Drop lines from a step on, and a last line that was cut off."""
    if path.is_file():
        write_rows(path, [row for row in read_rows(path, step=int) if row["step"] < step])


def _start_wandb(project: str, run: Path, settings: Mapping[str, Any], resumes: bool) -> Any:
    """Start logging to a project: if this run resumes, to the run whose id is in `wandb_id.txt`, else to a new one."""
    try:
        import wandb
    except ImportError as error:
        raise TrainingError("track.wandb is set, but wandb isn't installed: pip install 'fairhuman[wandb]'") from error
    kept = run / "wandb_id.txt"
    if not (resumes and kept.is_file()):
        write_text(kept, f"{uuid.uuid4().hex}\n")
    own = kept.read_text(encoding="utf-8").strip()
    return wandb.init(project=project, name=run.name, dir=run, config=dict(settings), id=own, resume="allow")
