"""Check before training that a data set has the conditions of a ControlNet or T2I-adapter."""

from collections.abc import Sequence

from fairhuman.data.samples.conditions import read_conditions
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord
from fairhuman.train.recipe import TrainRecipe

_TRIED = 16  # records: enough to distinguish a data set without usable conditions from one with a few bad ones


def check_conditions(recipe: TrainRecipe, train: Sequence[HumanRecord], held_out: Sequence[HumanRecord]) -> None:
    """Check that each condition of the recipe is usable in at least one training and one held-out record.

    Raises:
        DataError: no record has it, or none of the first records that have it is usable; names condition and cause.
    """
    names = recipe.control.conditions if recipe.control is not None else ()
    for part, records in (("to train on", train), ("held out", held_out)):
        for name in names if records else ():
            with_it = [record for record in records if getattr(record, name) is not None][:_TRIED]
            if not with_it:
                raise DataError(
                    f"{recipe.data_name}: {recipe.kind}.conditions has {name}, but no record {part} has one. "
                    "Estimate it with fairhuman data build, or set another condition"
                )
            found = [read_conditions(record, [name], recipe.source.limits) for record in with_it]
            if not any(conditions for conditions, _ in found):
                finding = found[0][1][0]
                raise DataError(
                    f"{recipe.data_name}: none of the first {len(with_it)} records {part} with a {name} is "
                    f"usable; {with_it[0].location or with_it[0].key}: {finding.reason} ({finding.value})"
                )
