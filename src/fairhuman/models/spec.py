"""A model with added weights in one text, as `--model` and `--method` take it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fairhuman.errors import ModelError, RecipeError
from fairhuman.models.locations import MOLE_FILE, find_lora, name_of


@dataclass(frozen=True)
class ModelSpec:
    """Folder or hub id of a pipeline, optionally with a LoRA or a MoLE."""

    model: str
    lora: Path | None = None
    weight: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "ModelSpec":
        """`MODEL`, `MODEL+LORA` or `MODEL+LORA@WEIGHT`; a path with a `+` is taken as far as it exists.

        Raises:
            RecipeError: an empty part, or a weight that isn't a number.
        """
        ends = [*(place for place, letter in enumerate(text) if letter == "+"), len(text)]
        end = next((end for end in reversed(ends) if end and Path(text[:end]).exists()), ends[0])
        model, plus, lora = text[:end], text[end : end + 1], text[end + 1 :]
        path, at, weight = lora.rpartition("@") if "@" in lora else (lora, "", "1")
        try:
            strength = float(weight)
        except ValueError as error:
            raise RecipeError(f"expected MODEL+LORA@WEIGHT with a numeric weight, found {text!r}") from error
        if not model or (plus and not path) or (at and not path):
            raise RecipeError(f"expected MODEL, MODEL+LORA or MODEL+LORA@WEIGHT, found {text!r}")
        return cls(model, Path(path) if path else None, strength)

    def added_weights(self) -> tuple[Path, bool] | None:
        """File of the LoRA or MoLE, and whether it is a MoLE; None without one. The file isn't read.

        Raises:
            ModelError: there is no such file.
            RecipeError: a weight is given for a MoLE, whose gates determine its strength.
        """
        if self.lora is None:
            return None
        file = self.lora / MOLE_FILE if (self.lora / MOLE_FILE).is_file() else find_lora(self.lora)
        from fairhuman.models.mole import is_mole  # imports torch

        mole = is_mole(file)
        if mole and self.weight != 1.0:
            raise RecipeError(
                f"{self.lora}@{self.weight:g}: a MoLE takes no weight, its gates determine its strength; leave it out"
            )
        return file, mole


def check_comparable(models: Mapping[str, ModelSpec]) -> None:
    """Check that all models are of one base: errors of noise and of velocity aren't the same thing.

    Raises:
        ModelError: two are of different bases.
    """
    titles = {name: name_of(one.model).title for name, one in models.items()}
    first, title = next(iter(titles.items()))
    for name, other in titles.items():
        if other != title:
            raise ModelError(
                f"models {first!r} and {name!r} are {title} and {other}, whose losses measure different errors: "
                "compare models of one base at a time"
            )
