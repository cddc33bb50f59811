"""A validation set from a source: filter, draw, make prompts, write."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fairhuman.data.caption.item import Caption
from fairhuman.data.validation.candidates import Funnel, Progress, filter_candidates, read_candidates
from fairhuman.data.validation.looks import Look
from fairhuman.data.validation.page import write_page
from fairhuman.data.validation.picture_files import box_numbers, picture_file
from fairhuman.data.validation.prompts import asking
from fairhuman.data.validation.sampling import draw, mix, overlap
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.data.validation.strata import Stratum, stratum
from fairhuman.data.validation.workplace import LOOKS, MANIFEST, PROMPTS, finished_set, identity, workplace
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord, region_column
from fairhuman.utils.files import write_atomically, write_json, writing
from fairhuman.utils.journal import Journal

FEWEST_FAILURES = 10  # of a model, before they are counted as a share


@dataclass(frozen=True)
class ValidationSummary:
    """What a set holds.

    Attributes:
        pictures: in the set.
        usable: that could have been drawn.
        stages: records left after each stage, in order.
        reasons: records left out, by reason, the most frequent first.
        report: the page.

    """

    pictures: int
    usable: int
    stages: Mapping[str, int]
    reasons: Mapping[str, int]
    report: Path


@dataclass(frozen=True)
class _Chosen:
    """The set before it is written: records by key in the draw's order, and what belongs to each."""

    records: Mapping[str, HumanRecord]
    looks: Mapping[str, Look]
    prompts: Mapping[str, Caption]
    strata: Mapping[str, Stratum]  # of all that could be drawn


def build_validation(
    source: Path,
    out: Path,
    settings: ValidationSetSettings,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> ValidationSummary:
    """Write an imagefolder `out` with `manifest.json`, `rejected.jsonl` and `report.html`.

    It appears whole or not at all; the same call goes on after an interruption, and does nothing where the set is
    there. The same source and settings give the same bytes (prompts by a model as far as the model does).

    Args:
        source: whatever `read_source` reads.
        out: a new or empty folder; what isn't finished lies beside it in `.NAME.work`.
        settings: of the set.
        progress: is told what is done, how many of it, and of how many.
        say: is told what a user should know.

    Raises:
        DataError: too few usable pictures; the source or the folder can't be used; a model that fails.
        FairHumanError: the disk.

    """
    out = out.absolute()
    funnel = Funnel()
    records = read_candidates(source, settings, funnel)
    expected = identity(settings, records.values())
    with writing(out, "; the same command goes on"):
        if finished_set(out, expected) is None:
            with workplace(out, expected) as work:
                chosen = _choose(records, settings, funnel, work, progress)
                say(f"writing {len(chosen.records)} of {len(chosen.strata)} usable pictures")
                write_atomically(out, partial(_write, chosen, settings, funnel, expected, progress))
        else:
            say(f"{out}: is finished, nothing to do")
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    return ValidationSummary(
        len(manifest["pictures"]),
        manifest["usable"],
        dict(manifest["stages"]),
        manifest["rejected"],
        out / "report.html",
    )


def _choose(
    records: Mapping[str, HumanRecord], settings: ValidationSetSettings, funnel: Funnel, work: Path, progress: Progress
) -> _Chosen:
    """Draw records and make their prompts; one without a prompt makes room for the next one of the draw."""
    kept, looks = filter_candidates(records, settings, funnel, Journal(work / LOOKS), progress)
    strata = {key: stratum(record, settings.strata) for key, record in kept.items()}
    prompts: dict[str, Caption] = {}
    by_rules = settings.prompts.kind == "rules"
    failures: list[Failure] = []
    with asking(settings, Journal(work / PROMPTS), progress) as ask:
        while True:
            _check_count(len(strata), settings, funnel)
            drawn = draw_set(strata, settings, settings.seed)
            # rules cost nothing, so they tell of all records whether there is a prompt
            wanted = [key for key in (strata if by_rules else drawn) if key not in prompts]
            if not wanted:
                break
            for key, answer in zip(wanted, ask([(kept[key], looks[key].digest) for key in wanted]), strict=True):
                if isinstance(answer, Caption):
                    prompts[key] = answer
                else:
                    del strata[key]
                    funnel.reject(kept[key], "prompt", answer.reason, kept[key].caption)
                    failures += [] if by_rules else [answer]
                    _check_failures(failures, settings)
    funnel.stages.append(("has a prompt" if by_rules else "no prompt failed", len(strata)))
    return _Chosen({key: kept[key] for key in drawn}, looks, prompts, strata)


def draw_set(strata: Mapping[str, Stratum], settings: ValidationSetSettings, seed: int) -> list[str]:
    """The keys of the set that a seed gives."""
    return draw(strata, settings.count, seed, settings.sampling, settings.allocation)


def _check_count(usable: int, settings: ValidationSetSettings, funnel: Funnel) -> None:
    if usable >= settings.count or (settings.allow_fewer and usable):
        return
    most = "".join(f"\n  {reason}: {number}" for reason, number in list(funnel.reasons().items())[:5])
    raise DataError(
        f"count = {settings.count}, but {usable} of {funnel.stages[0][1]} records are usable. Left out were{most}\n"
        "Change the filters, give a smaller count, or take all there are with allow_fewer=true"
    )


def _check_failures(failures: Sequence[Failure], settings: ValidationSetSettings) -> None:
    most = max(FEWEST_FAILURES, settings.prompts.max_failed_share * settings.count)
    if len(failures) > most:
        reasons = Counter(failure.reason for failure in failures).most_common(3)
        shown = "".join(f"\n  {reason} ({number})" for reason, number in reasons)
        raise DataError(
            f"{len(failures)} prompts failed, more than prompts.max_failed_share = "
            f"{settings.prompts.max_failed_share:g} of count; the same command asks for them again:{shown}"
        )


def _write(
    chosen: _Chosen,
    settings: ValidationSetSettings,
    funnel: Funnel,
    expected: Mapping[str, Any],
    progress: Progress,
    folder: Path,
) -> None:
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, record in enumerate(chosen.records.values()):
        ending, content = picture_file(record, settings.source.limits)
        name = f"images/{number:05d}{ending}"
        (folder / name).write_bytes(content)
        rows.append(_row(name, record, chosen, settings.strata))
        progress("writing pictures", number + 1, len(chosen.records))
    _write_lines(folder / "metadata.jsonl", rows)
    _write_lines(folder / "rejected.jsonl", funnel.rejected)
    manifest = _manifest(chosen, settings, funnel, expected)
    write_json(folder / MANIFEST, manifest)
    write_page(folder / "report.html", manifest, list(chosen.records.values()), rows, settings.source.limits)


def _row(name: str, record: HumanRecord, chosen: _Chosen, dimensions: Sequence[str]) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "file_name": name,
        "key": record.key,
        "caption": chosen.prompts[record.key].text,
        "source_caption": record.caption,
        "width": record.width,
        "height": record.height,
    }
    for region, boxes in record.boxes.items():
        columns[region_column(region)] = None if boxes is None else [box_numbers(box) for box in boxes]
    return {**columns, "stratum": dict(zip(dimensions, chosen.strata[record.key], strict=True))}


def _manifest(
    chosen: _Chosen, settings: ValidationSetSettings, funnel: Funnel, expected: Mapping[str, Any]
) -> dict[str, Any]:
    draws = [draw_set(chosen.strata, settings, settings.seed + number) for number in range(settings.draws)]
    shares = mix(chosen.strata, settings.strata, list(chosen.records), draws)
    return {
        **expected,
        "stages": funnel.stages,
        "rejected": funnel.reasons(),
        "unknown": funnel.unknown,
        "usable": len(chosen.strata),
        "mix": {name: {value: asdict(share) for value, share in values.items()} for name, values in shares.items()},
        "overlap": overlap(draws),
        "strata": _strata(chosen, settings),
        "pictures": {key: chosen.looks[key].digest for key in chosen.records},
    }


def _strata(chosen: _Chosen, settings: ValidationSetSettings) -> list[dict[str, Any]]:
    """Of a stratified set: how many each stratum has and gave, and whether that was too few for its share."""
    if settings.sampling == "random":
        return []
    sizes = Counter(chosen.strata.values())
    taken = Counter(chosen.strata[key] for key in chosen.records)
    equal = len(chosen.records) / len(sizes)
    return [
        {
            "stratum": name,
            "usable": sizes[name],
            "taken": taken[name],
            "small": sizes[name] < equal if settings.allocation == "equal" else not taken[name],
        }
        for name in sorted(sizes)
    ]


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
