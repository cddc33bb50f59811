"""Held-out losses of finished runs in small files that outlive the runs.

`NAME.npz` holds the losses of one run before and after training, and the settings they depend on. A comparison reads
only these files, so that runs may be deleted or made on several machines. The file is an npz archive behind its digest
(`sealed`); that of an earlier version is the archive alone, and is read unchecked.
"""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fairhuman import config
from fairhuman.compare.settings import CompareRecipe
from fairhuman.errors import DataError
from fairhuman.models.fingerprint import base_fingerprint
from fairhuman.models.locations import is_file
from fairhuman.report.changes import Pair, read_pair
from fairhuman.report.run_folder import HeldOutEvaluation, read_metrics
from fairhuman.train.levels import void_settings
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import free_on_resume
from fairhuman.utils.digest import sealed, unsealed
from fairhuman.utils.files import write_atomically
from fairhuman.utils.parse import parse_json

Value = TypeVar("Value")
_ZIP = b"PK"  # begins an archive, and no digest


def store_losses(recipe: CompareRecipe, run: TrainRecipe) -> None:
    """Write the losses of a finished run.

    Raises:
        DataError: the run lacks losses before and after training.
    """
    first, last = read_pair(run.out)
    arrays: dict[str, Any] = {"depends_on": json.dumps(_depends_on(recipe, run)), "keys": np.array(first.keys)}
    for part, evaluation in (("first", first), ("last", last)):
        arrays[f"{part} step"] = evaluation.step
        for name, errors in evaluation.errors.items():
            arrays[f"{part} {name}"] = np.stack([errors, evaluation.areas[name]]).astype(np.float32)
    exact = read_metrics(run.out).columns.get("exact")
    if exact is not None:
        arrays["exact steps"] = int(np.nansum(exact))

    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    write_atomically(_file(recipe, run), lambda path: path.write_bytes(sealed(archive.getvalue())))


def load_losses(recipe: CompareRecipe, run: TrainRecipe) -> Pair | None:
    """The stored losses of a run; None if there are none, or if they belong to other settings or data.

    Raises:
        DataError: the file can't be read, or its evaluations have different objectives or numbers of samples.
    """

    def pair(arrays: Mapping[str, Any]) -> Pair | None:
        if not _depends_on_same(parse_json(str(arrays["depends_on"])), recipe, run):
            return None
        keys = tuple(str(key) for key in arrays["keys"])
        first, last = _evaluation(arrays, "first", keys), _evaluation(arrays, "last", keys)
        shapes = [{name: sums.shape for name, sums in one.errors.items()} for one in (first, last)]
        if not shapes[0] or any(one != dict.fromkeys(shapes[0], (len(keys),)) for one in shapes):
            raise ValueError(f"expected the same losses of {len(keys)} samples before and after, found {shapes}")
        return first, last

    return _read(_file(recipe, run), pair)


def stored_exact_steps(recipe: CompareRecipe, run: TrainRecipe) -> int | None:
    """Steps of a finished run that were exact; None if its losses were stored without them. Errors as `load_losses`."""

    def count(arrays: Mapping[str, Any]) -> int | None:
        return int(arrays["exact steps"]) if "exact steps" in arrays else None

    return _read(_file(recipe, run), count)


def are_unchecked(recipe: CompareRecipe, run: TrainRecipe) -> bool:
    """Whether a run's losses were stored by an earlier version, without a digest."""
    file = _file(recipe, run)
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_ZIP)) == _ZIP


def _read(path: Path, of: Callable[[Mapping[str, Any]], Value | None]) -> Value | None:
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        archive = content if content.startswith(_ZIP) else unsealed(path)
        with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
            return of(arrays)
    except Exception as error:  # a damaged archive fails in many ways: zlib.error, TokenError, NotImplementedError
        reason = str(error).removeprefix(f"{path}: ")
        raise DataError(f"{path}: can't be read; delete it to repeat the run: {reason}") from error


def _evaluation(arrays: Mapping[str, Any], part: str, keys: tuple[str, ...]) -> HeldOutEvaluation:
    names = [name.removeprefix(f"{part} ") for name in arrays if name.startswith(f"{part} ")]
    sums = {name: arrays[f"{part} {name}"].astype(np.float64) for name in names if name != "step"}
    errors, areas = ({name: both[row] for name, both in sums.items()} for row in (0, 1))
    return HeldOutEvaluation(int(arrays[f"{part} step"]), keys, errors, areas)


def _file(recipe: CompareRecipe, run: TrainRecipe) -> Path:
    return recipe.results_folder / "losses" / run.out.parent.name / f"{run.out.name}.npz"


def _depends_on(recipe: CompareRecipe, run: TrainRecipe) -> dict[str, Any]:
    """All settings that a run's losses depend on, with the settings of rendered people in place of their paths."""
    settings = config.flatten(run.model_dump(mode="json"))
    people = {str(recipe.data(name)): one.decisive() for name, one in recipe.people.items()}

    def data(place: object) -> object:
        return people.get(str(place), str(place))

    sources = [{**source.model_dump(mode="json"), "path": data(source.path)} for source in run.sources]
    decisive = {name: value for name, value in settings.items() if name == "steps" or not free_on_resume(name)}
    found = {**decisive, "data": sources, "validation.data": data(run.validation.data)}
    if run.steer.data is not None:
        found["steer.data"] = data(run.steer.data)
    # a file can be replaced by another of the same name
    return {**found, "model weights": base_fingerprint(run.model, run.base)} if is_file(run.model) else found


def _depends_on_same(kept: Mapping[str, Any], recipe: CompareRecipe, run: TrainRecipe) -> bool:
    """Whether losses stored with the settings `kept` are those of `run`.

    Newer settings count as their defaults, and what has no effect in `run` doesn't count; nor does a setting that was
    not set and that training no longer has.
    """
    wanted, void = _depends_on(recipe, run), void_settings(run)
    defaults = _depends_on(recipe, TrainRecipe(data=run.data, out=run.out, steps=run.steps))
    decisive = {name: value for name, value in wanted.items() if name not in void}
    gone = {name for name in kept.keys() - wanted.keys() if kept[name] is not None}
    return not gone and {**defaults, **kept}.items() >= decisive.items()
