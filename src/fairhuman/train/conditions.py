"""Whether a data set has what a ControlNet or T2I-adapter is to follow; said before training, not after."""

from collections.abc import Sequence

from fairhuman.data.samples.conditions import read_conditions
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord
from fairhuman.train.recipe import TrainRecipe

_TRIED = 16  # records: enough to tell a data set of unusable conditions from one with a few


def check_conditions(recipe: TrainRecipe, train: Sequence[HumanRecord], held_out: Sequence[HumanRecord]) -> None:
    """Check that each condition of the recipe can be used in some record of each part; a few may lack it.

    Raises:
        DataError: no record has it, or the first ones that have it can't be used; names the condition and the cause.

    """
    names = recipe.control.conditions if recipe.control is not None else ()
    for part, records in (("to train on", train), ("held out", held_out)):
        for name in names if records else ():
            with_it = [record for record in records if getattr(record, name) is not None][:_TRIED]
            if not with_it:
                raise DataError(
                    f"{recipe.data_name}: {recipe.kind}.conditions asks for {name}, and no record {part} has it. "
                    "Estimate it with fairhuman data build, or ask for another"
                )
            found = [read_conditions(record, [name], recipe.source.limits) for record in with_it]
            if not any(conditions for conditions, _ in found):
                finding = found[0][1][0]
                raise DataError(
                    f"{recipe.data_name}: no {name} of the first {len(with_it)} records {part} that have one can be "
                    f"used; {with_it[0].location or with_it[0].key}: {finding.reason} ({finding.value})"
                )
