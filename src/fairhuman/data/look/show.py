"""A contact sheet of a data set: pages with pictures, boxes, masks, poses, captions and rejected rows."""

import base64
import hashlib
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from fairhuman.data.look.built import RejectedExample, RejectedGroup, add_records, build_source, rejected_groups
from fairhuman.data.look.check import Progress, note_text
from fairhuman.data.look.layers import Layers, draw_layers
from fairhuman.data.look.reading import (
    DEFAULT_SETTINGS,
    DataSet,
    annotation_columns,
    open_dataset,
    read_report,
    require_usable,
)
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.report import REJECTED
from fairhuman.data.pipeline.rows import SEARCHED
from fairhuman.data.sources import SourceSettings
from fairhuman.data.sources.edits import BY_HAND
from fairhuman.data.sources.rows import Row
from fairhuman.record import HumanRecord
from fairhuman.report.colours import colours
from fairhuman.report.html import render
from fairhuman.report.text import plural
from fairhuman.utils.files import write_text, writing
from fairhuman.utils.parse import escape_control

REJECTED_EXAMPLES = 6  # per reason
NOTES = 50  # maximum number of notes on the page
POLICY = "style-src 'unsafe-inline'"  # end of the content security policy in `page.html`
PICTURES_A_PAGE = 60
MANY = 8  # regions; if there are more, those that are only painted are hidden at first and have no count
SCRIPT = """
const cards = [...document.querySelectorAll(".card")], text = document.getElementById("text");
const state = document.getElementById("state"), count = document.getElementById("count");
const pages = [...document.querySelectorAll("a[data-cards]")].map((link) => [link, JSON.parse(link.dataset.cards)]);
const matches = (words, states) =>
  words.toLowerCase().includes(text.value.toLowerCase()) && (!state.value || states.split(" ").includes(state.value));
function filter() {
  let shown = 0;
  for (const card of cards) {
    card.hidden = !matches(card.textContent, card.className);
    shown += !card.hidden;
  }
  count.textContent = shown + " of " + cards.length;
  const all = text.value === "" && state.value === "";
  for (const [link, others] of pages) {
    const found = others.filter(([words, states]) => matches(words, states)).length;
    link.lastElementChild.textContent = all ? "" : "(" + found + ")";
    link.hash = all ? "" : new URLSearchParams({ text: text.value, state: state.value });
  }
}
const wanted = new URLSearchParams(location.hash.slice(1));
text.value = wanted.get("text") ?? "";
if (wanted.get("state")) state.value = wanted.get("state");
text.addEventListener("input", filter);
state.addEventListener("change", filter);
filter();
"""


@dataclass(frozen=True, slots=True)
class Card:
    """One picture of the sheet; `states` are CSS classes such as `has-0` with the index of a region."""

    record: HumanRecord
    layers: Layers
    states: str
    source_caption: str
    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RejectedCard:
    """A rejected row of a build as text, and its picture if there is one."""

    text: str
    layers: Layers | None


def show_dataset(
    path: Path,
    page: Path,
    count: int = 60,
    seed: int = 0,
    first: bool = False,
    rejected: bool = True,
    settings: SourceSettings = DEFAULT_SETTINGS,
    regions: Sequence[str] = (),
    progress: Progress = lambda _stage, _done, _all: None,
) -> int:
    """Write pictures from a data set in any format, at most `count`, the first ones or a random sample by `seed`, to
    self-contained pages of 60 with links between them: `page`, then `page-2`, `page-3`, ... beside it.

    Boxes are drawn of `regions` besides those that the data set has. With `rejected`, the first page shows a build's
    rejected rows too, with pictures if the source still has them. `progress` is called with the number of pictures
    drawn.

    Returns:
        Number of pictures on the pages.

    Raises:
        DataError: the data set can't be read, or the sample has no usable record.
        FairHumanError: a page can't be written.
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    dataset = open_dataset(path, settings, regions)
    report = LoadReport()
    rows, total = _sample_rows(dataset.rows(report), count, None if first else random.Random(seed))
    found = [(row, record) for row in rows if (record := dataset.record(row, report)) is not None]
    names = list(dict.fromkeys([*dataset.regions, *(name for _, record in found for name in record.masks)]))
    palette = colours(names)
    cards = _draw_cards(dataset, found, names, palette, report, progress)
    require_usable(dataset, report, len(cards))
    groups = rejected_groups(path, REJECTED_EXAMPLES) if rejected else []
    facts = _facts(dataset, names, cards, total, None if first else seed)
    sheets = [cards[start : start + PICTURES_A_PAGE] for start in range(0, len(cards), PICTURES_A_PAGE)]
    links = [_Link(number, _page_name(page, number).name, cards) for number, cards in enumerate(sheets, start=1)]
    with writing(page):
        for number in range(len(sheets), 0, -1):  # the first page last, so that what it links to is there
            of_first = (facts, groups, report) if number == 1 else ((), [], LoadReport())
            text = _page(path, dataset, palette, links, number, *of_first)
            write_text(_page_name(page, number), text)
    return len(cards)


def _page_name(page: Path, number: int) -> Path:
    return page if number == 1 else page.with_name(f"{page.stem}-{number}{page.suffix}")


@dataclass(frozen=True, slots=True)
class _Link:
    """A page of the sheet."""

    number: int
    href: str
    cards: Sequence[Card]

    @property
    def words(self) -> list[tuple[str, str]]:
        """What other pages search in: text and states of each picture."""
        return [(f"{card.record.caption} {card.source_caption} {card.record.key}", card.states) for card in self.cards]


def _page(
    path: Path,
    dataset: DataSet,
    palette: dict[str, str],
    links: Sequence[_Link],
    number: int,
    facts: Sequence[tuple[str, str]],
    groups: list[RejectedGroup],
    report: LoadReport,
) -> str:
    """One page as HTML; `palette` has the colour of every shown region, in their order."""
    source = build_source(path) if groups else None
    notes = [(note.action, note.reason, note_text(note)) for note in report.notes if note.action != "converted"]
    every = [card.layers for link in links for card in link.cards]
    text = render(
        "data_show.html",
        title=f"{escape_control(path.resolve().name)}: {sum(len(link.cards) for link in links)} pictures",
        facts=facts,
        regions=[(name, colour, _is_usual(dataset, name, len(palette))) for name, colour in palette.items()],
        kinds=[name for name in ("boxes", "masks", "pose", "depth") if any(getattr(one, name) for one in every)],
        order={name: number for number, name in enumerate(palette)},
        cards=links[number - 1].cards,
        links=links,
        number=number,
        groups=_rejected_cards(path, groups, source, palette),
        source_missing=bool(groups) and source is None,
        table=REJECTED,
        notes=notes[:NOTES],
        script=SCRIPT,
    )
    return _allow_script(SCRIPT, text)


def _draw_cards(
    dataset: DataSet,
    records: Sequence[tuple[Row, HumanRecord]],
    names: Sequence[str],
    palette: dict[str, str],
    report: LoadReport,
    progress: Progress,
) -> list[Card]:
    cards: list[Card] = []
    for number, (row, record) in enumerate(records, start=1):
        layers = draw_layers(dataset, record, palette, report)
        if layers is not None:
            cards.append(_card(dataset, row, record, layers, names))
        progress("show", number, len(records))
    return cards


def _sample_rows(rows: Iterator[Row], count: int, generator: random.Random | None) -> tuple[list[Row], int | None]:
    """The first rows; or, with a generator, a uniform sample in order (Vitter's algorithm R) and the total."""
    if generator is None:
        return list(islice(rows, count)), None
    chosen: list[tuple[int, Row]] = []
    number = -1
    for number, row in enumerate(rows):
        if number < count:
            chosen.append((number, row))
        elif (at := generator.randrange(number + 1)) < count:
            chosen[at] = (number, row)
    return [row for _, row in sorted(chosen, key=lambda each: each[0])], number + 1


def _card(dataset: DataSet, row: Row, record: HumanRecord, layers: Layers, names: Sequence[str]) -> Card:
    states = []
    for number, name in enumerate(names):
        known = "has" if record.has(name) else "none" if record.annotated(name) else "unknown"
        states.append(f"{known}-{number}")
    source_caption = row.values.get("source_caption")
    differs = isinstance(source_caption, str) and source_caption != record.caption
    return Card(
        record, layers, " ".join(states), str(source_caption) if differs else "", _card_facts(dataset, row, record)
    )


def _card_facts(dataset: DataSet, row: Row, record: HumanRecord) -> list[tuple[str, str]]:
    values = row.values
    facts = [(region, _region_text(region, values, record)) for region in dataset.regions]
    facts += [(name, "painted") for name in record.masks if name not in dataset.regions]
    facts += [("repeats", str(record.repeats))] if record.repeats > 1 else []
    if isinstance(values.get("clarity"), int | float):
        facts.append(("clarity", f"{values['clarity']:.0f}"))
    by = [(name, values.get(f"{name}_by")) for name in ("caption", "pose", "depth")]
    if values.get("source_caption") == record.caption:  # a captioner that keeps what is there
        by[0] = ("caption", by[0][1] and "the source")
    facts += [(f"{name} by", str(model)) for name, model in by if model]
    facts += [(name, str(values[name])) for name in ("source", "split") if values.get(name)]
    return [*facts, ("at", record.location)]


def _region_text(region: str, values: Mapping[str, Any], record: HumanRecord) -> str:
    """Such as `2, by mediapipe, score 0.91 0.80, votes 5 3`, or `of 1 of 2 persons` instead of votes."""
    boxes = record.boxes.get(region)
    _, scores, votes, persons, by = (values.get(column) for column in annotation_columns(region))
    parts = ["unknown" if boxes is None else str(len(boxes)) if boxes else "none"]
    if region in record.masks:
        drawn = "painted" if by in (None, "source", BY_HAND) else "with a mask"
        parts = [drawn] if boxes is None else [*parts, drawn]
    parts += [f"{'by' if boxes is not None else 'not found by'} {by}"] if by else []
    shown = scores if isinstance(scores, list) else [box.score for box in boxes or ()]
    numbers = [f"{score:.2f}" for score in shown if isinstance(score, int | float) and math.isfinite(score)]
    parts += [f"score {' '.join(numbers)}"] if numbers else []
    parts += [f"votes {' '.join(map(str, votes))}"] if isinstance(votes, list) and votes else []
    if isinstance(persons, list) and isinstance(searched := values.get(SEARCHED), int):
        parts += [f"of {len(set(persons))} of {plural(searched, 'person')}"]
    return ", ".join(parts)


def _rejected_cards(
    path: Path, groups: list[RejectedGroup], source: DataSet | None, palette: dict[str, str]
) -> list[tuple[RejectedGroup, list[RejectedCard]]]:
    """Each group with the cards of its examples, with pictures if the source still has them."""
    if source is not None:
        add_records(path, source, groups)
    return [(group, [_rejected_card(example, source, palette) for example in group.examples]) for group in groups]


def _rejected_card(example: RejectedExample, source: DataSet | None, palette: dict[str, str]) -> RejectedCard:
    layers = None
    if source is not None and example.record is not None:
        bare = replace(example.record, masks={}, pose=None, depth=None)
        layers = draw_layers(source, bare, palette, LoadReport())
    return RejectedCard(example.text, layers)


def _facts(
    dataset: DataSet, names: Sequence[str], cards: Sequence[Card], total: int | None, seed: int | None
) -> list[tuple[str, str]]:
    """Facts about the sheet, and about each region that is shown at first."""
    report = read_report(dataset.path)
    return [
        ("pictures", str(len(cards))),
        ("sample", "all" if total == len(cards) else "the first ones" if seed is None else f"random, seed {seed}"),
        *([("records", f"{total:,}")] if total is not None else []),
        ("format", dataset.kind if report is None else f"built from {report.get('format')}"),
        *((name, _share(cards, number)) for number, name in enumerate(names) if _is_usual(dataset, name, len(names))),
    ]


def _is_usual(dataset: DataSet, name: str, regions: int) -> bool:
    """Whether a region is shown at first: all of a few, and those with boxes of many."""
    return regions <= MANY or name in dataset.regions


def _share(cards: Sequence[Card], number: int) -> str:
    """Such as `in 9 of 16, 2 unknown`, or `unknown` where no picture is annotated."""
    states = [state for card in cards for state in card.states.split()]
    unknown = states.count(f"unknown-{number}")
    if unknown == len(cards):
        return "unknown"
    return f"in {states.count(f'has-{number}')} of {len(cards)}" + (f", {unknown} unknown" if unknown else "")


def _allow_script(script: str, page: str) -> str:
    """Allow only this script in the page's content security policy; a script injected by a caption doesn't run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return page.replace(POLICY, f"{POLICY}; script-src 'sha256-{digest}'", 1)
