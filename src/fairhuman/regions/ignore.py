"""The region `ignore`: what of a record counts for no objective."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from fairhuman.record import IGNORE, Box, HumanRecord, region_column
from fairhuman.regions.settings import BUT_THE_LARGEST
from fairhuman.report.text import plural


class IgnoredCount:
    """In how many pictures something is ignored: by the region `ignore`, and by each rule of `regions.ignore`."""

    def __init__(self, rules: Sequence[str] = (), records: Iterable[HumanRecord] = ()) -> None:
        self.rules, self.pictures = rules, 0
        self._boxes: Counter[str] = Counter()
        self._masks: Counter[str] = Counter()
        for record in records:
            self.add(record)

    def add(self, record: HumanRecord) -> None:
        """Count a picture, before `move_ignored`."""
        self.pictures += 1
        for rule in (IGNORE, *self.rules):
            name = rule.removesuffix(BUT_THE_LARGEST)
            self._boxes[rule] += len(record.boxes.get(name) or ()) > (name != rule)
            self._masks[rule] += name == rule and name in record.masks

    def lines(self) -> list[str]:
        """Return what was found in one line, none if it is nothing, and a warning for each rule that finds nothing."""
        found, all_of_them = [], plural(self.pictures, "picture")
        for rule in (IGNORE, *self.rules):
            region = rule.removesuffix(BUT_THE_LARGEST)
            named = rule if region == rule else f"{region_column(region)}{BUT_THE_LARGEST}"
            of = "" if rule == IGNORE else f" of {named}"
            found += [
                f"part of {count[rule]} of {all_of_them} by {what}{of}"
                for what, count in (("boxes", self._boxes), ("masks", self._masks))
                if count[rule]
            ]
        lines = [f"ignore: {', '.join(found)}; these parts count for no objective, the rest does"] if found else []
        nothing = [rule for rule in self.rules if not self._boxes[rule] and not self._masks[rule]]
        return lines + [
            f"warning: regions.ignore={rule!r} finds nothing in {all_of_them}, so nothing is ignored by it"
            for rule in nothing
        ]


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
