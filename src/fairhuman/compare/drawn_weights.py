"""Which pictures were drawn with the weights as they are now, from the hashes in their records."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from fairhuman.generate.record import read_record
from fairhuman.models.locations import find_lora, find_mole
from fairhuman.models.settings import BaseSettings

FIND: Mapping[str, Callable[[Path], Path]] = {
    "--lora": find_lora,
    "--mole": find_mole,
    "--controlnet": Path,
    "--t2i-adapter": Path,
}


def drawn_now(folder: Path, arguments: Sequence[str]) -> dict[Path, bool]:
    """Return the pictures in a folder, and whether each was drawn with the weights of a `fairhuman sample` command.

    A picture that doesn't tell wasn't. Weights that aren't on this machine aren't compared.

    Raises:
        ModelError: a LoRA or MoLE isn't one.
    """
    files = list(folder.glob("*.png"))
    known = _known(arguments) if files else []
    return {file: all(not names.isdisjoint(_recorded(file)) for names in known) for file in files}


def _known(arguments: Sequence[str]) -> list[set[str | None]]:
    """For each of the weights that are given: what records of this version and of earlier ones know them by."""
    from fairhuman.models.fingerprint import base_fingerprint, sampled_fingerprint, weights_fingerprint  # imports torch

    given = dict(pairwise(arguments))
    places = [find(Path(given[name])) for name, find in FIND.items() if name in given and Path(given[name]).exists()]
    known: list[set[str | None]] = [{weights_fingerprint(place), sampled_fingerprint(place)} for place in places]
    model = given.get("--model")
    if model is not None and (base := base_fingerprint(model, BaseSettings(vae=given.get("--vae")))) is not None:
        known.append({base, model})
    return known


def _recorded(file: Path) -> frozenset[str]:
    """Hashes of all weights that a picture was drawn with; none if it has just been removed."""
    try:
        return _read(file, file.stat().st_mtime_ns)
    except FileNotFoundError:
        return frozenset()


@lru_cache(maxsize=100_000)
def _read(file: Path, _mtime: int) -> frozenset[str]:
    record = read_record(file) or {}
    parts = [record.get("lora") or {}, *(record.get("controls") or ())]
    found = [
        record.get("model"),
        record.get("mole"),
        *(part.get(name) for part in parts for name in ("content", "weights")),
    ]
    return frozenset(one for one in found if one is not None)
