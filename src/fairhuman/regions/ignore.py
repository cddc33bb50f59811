"""The region `ignore`: what of a record counts for no objective."""

from collections.abc import Sequence
from dataclasses import replace

from fairhuman.record import IGNORE, Box, HumanRecord
from fairhuman.regions.settings import BUT_THE_LARGEST


def move_ignored(record: HumanRecord, rules: Sequence[str]) -> HumanRecord:
    """The record with boxes moved to the region `ignore` by the rules `NAME but the largest`.

    All boxes of the region move but the one with the largest area; of equal ones, the first stays. A painted mask of
    the region stays too, but for what lies in the moved boxes. Other rules change nothing here.
    """
    boxes = dict(record.boxes)
    ignored: list[Box] = list(boxes.get(IGNORE) or ())
    for rule in rules:
        name = rule.removesuffix(BUT_THE_LARGEST)
        found = boxes.get(name) or ()
        if name != rule and len(found) > 1:
            largest = max(found, key=lambda box: box.area)
            ignored += [box for box in found if box is not largest]
            boxes[name] = (largest,)
    return replace(record, boxes={**boxes, IGNORE: tuple(ignored)}) if boxes != record.boxes else record
