"""Build a validation set from a source: filter, draw, make prompts, write."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fairhuman.data.caption.item import Caption
from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.rows import boxes_to_lists
from fairhuman.data.sources.counts import alike_captions
from fairhuman.data.validation.boxes import FoundBoxes
from fairhuman.data.validation.candidates import Funnel, Progress, filter_candidates, read_candidates
from fairhuman.data.validation.looks import PictureInspection
from fairhuman.data.validation.page import write_page
from fairhuman.data.validation.picture_files import picture_file
from fairhuman.data.validation.prompts import open_prompts
from fairhuman.data.validation.sampling import draw_keys, mean_overlap, value_shares
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.data.validation.strata import Stratum, stratum
from fairhuman.data.validation.workplace import LOOKS, MANIFEST, PROMPTS, finished_set, identity, work_folder
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord, region_column
from fairhuman.utils.files import write_atomically, write_json, writing
from fairhuman.utils.journal import Journal, write_rows
from fairhuman.utils.parse import parse_json

NAMED = 5  # reasons that the error of too few pictures lists
MIN_FAILURES = 10  # failures of a model that are always tolerated


@dataclass(frozen=True)
class ValidationSummary:
    """Summary of a validation set.

    `usable` pictures could have been drawn; `stages` are the records left after each stage, in order; `reasons` the
    rejected records by reason, most frequent first.
    """

    pictures: int
    usable: int
    stages: Mapping[str, int]
    reasons: Mapping[str, int]
    report: Path


@dataclass(frozen=True)
class _Chosen:
    """The set before it is written: records by key in the order of the draw, with looks, prompts and found boxes."""

    records: Mapping[str, HumanRecord]
    looks: Mapping[str, PictureInspection]
    prompts: Mapping[str, Caption]
    strata: Mapping[str, Stratum]  # of all usable records
    found: FoundBoxes


def build_validation(
    source: Path,
    out: Path,
    settings: ValidationSetSettings,
    progress: Progress = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
) -> ValidationSummary:
    """Write an imagefolder `out` with `manifest.json`, `rejected.jsonl` and `report.html`, from any source of
    `read_source`.

    It is written atomically; unfinished work is kept beside it in `.NAME.work`. The same call resumes an interrupted
    build, and does nothing if the set is finished. The same source and settings give the same bytes (with prompts of a
    model, if the model is deterministic). `progress` is called with the stage, the number done and the total.

    Raises:
        DataError: too few pictures are usable; the source or the folder can't be used; the model fails.
        DetectorError: a detector that a filter needs can't be loaded.
        FairHumanError: the disk is full or can't be written.
    """
    given, out = out, out.absolute()
    funnel = Funnel()
    records = read_candidates(source, settings, funnel)
    if settings.prompts.kind == "rules" and not any(one.caption or one.attributes for one in records.values()):
        raise DataError(
            f"{source}: no picture has a caption or attributes to make a prompt of; build the data set first "
            "(fairhuman data build), or have prompts written: prompts.kind=transformers or endpoint"
        )
    expected = identity(settings, records.values())
    with writing(out, "; run the same command again to resume"):
        if finished_set(out, expected) is None:
            with work_folder(out, expected) as work:
                chosen = _choose(records, settings, funnel, work, progress)
                for note in chosen.found.notes:
                    say(note)
                for text in alike_captions([chosen.prompts[key].text for key in chosen.records], " as prompts"):
                    say(text)
                say(f"writing {len(chosen.records)} of {len(chosen.strata)} usable pictures")
                write_atomically(out, partial(_write, chosen, settings, funnel, expected, progress))
        else:
            say(f"{given}: already finished, nothing to do")
        manifest = parse_json((out / MANIFEST).read_text(encoding="utf-8"))
    return ValidationSummary(
        len(manifest["pictures"]),
        manifest["usable"],
        dict(manifest["stages"]),
        manifest["rejected"],
        given / "report.html",
    )


def _choose(
    records: Mapping[str, HumanRecord], settings: ValidationSetSettings, funnel: Funnel, work: Path, progress: Progress
) -> _Chosen:
    """Draw records and make their prompts; a record without a prompt is replaced by the next one in the draw."""
    candidates = filter_candidates(
        records, settings, funnel, Journal(work / LOOKS, digest=str, clarity=float), progress
    )
    kept, looks = candidates.records, candidates.looks
    strata = {key: stratum(record, settings.strata) for key, record in kept.items()}
    prompts: dict[str, Caption] = {}
    by_rules = settings.prompts.kind == "rules"
    failures: list[Failure] = []
    with open_prompts(
        settings, Journal(work / PROMPTS, key=str, picture=str, text=str, tokens=list, cut=bool), progress
    ) as make_prompts:
        while True:
            _check_count(len(strata), settings, funnel)
            drawn = draw_set(strata, settings, settings.seed)
            # rules are cheap, so they are applied to all records to find those with a prompt
            wanted = [key for key in (strata if by_rules else drawn) if key not in prompts]
            if not wanted:
                break
            for key, answer in zip(
                wanted, make_prompts([(kept[key], looks[key].digest) for key in wanted]), strict=True
            ):
                if isinstance(answer, Caption):
                    prompts[key] = answer
                else:
                    del strata[key]
                    funnel.reject(kept[key], "prompt", answer.reason, kept[key].caption)
                    failures += [] if by_rules else [answer]
                    _check_failures(failures, settings)
    funnel.stages.append(("has a prompt" if by_rules else "no prompt failed", len(strata)))
    return _Chosen({key: kept[key] for key in drawn}, looks, prompts, strata, candidates.found)


def draw_set(strata: Mapping[str, Stratum], settings: ValidationSetSettings, seed: int) -> list[str]:
    """The keys of the set for a seed."""
    return draw_keys(strata, settings.count, seed, settings.sampling, settings.allocation)


def _check_count(usable: int, settings: ValidationSetSettings, funnel: Funnel) -> None:
    if usable >= settings.count or (settings.allow_fewer and usable):
        return
    counts = list(funnel.reasons().items())
    reasons = "".join(
        f"\n  {reason}: {number}" + (f"; {funnel.advice[reason]}" if reason in funnel.advice else "")
        for reason, number in counts[:NAMED]
    )
    if more := sum(number for _, number in counts[NAMED:]):
        reasons += f"\n  for {len(counts) - NAMED} other reasons: {more}"
    found = f"{usable} of {funnel.stages[0][1]} records are usable. Rejected:{reasons}\nChange the filters"
    if not usable:
        raise DataError(found)
    raise DataError(
        f"count = {settings.count}, but only {found}, lower count, or take all usable records with allow_fewer=true"
    )


def _check_failures(failures: Sequence[Failure], settings: ValidationSetSettings) -> None:
    limit = max(MIN_FAILURES, settings.prompts.max_failed_share * settings.count)
    if len(failures) > limit:
        reasons = Counter(failure.reason for failure in failures).most_common(3)
        shown = "".join(f"\n  {reason} ({number})" for reason, number in reasons)
        raise DataError(
            f"{len(failures)} prompts failed, more than prompts.max_failed_share = "
            f"{settings.prompts.max_failed_share:g} of count; run the same command again to retry them:{shown}"
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
    dropped: dict[str, str] = {}
    for number, record in enumerate(chosen.records.values()):
        suffix, content = picture_file(record, settings.source.limits)
        name = f"images/{number:05d}{suffix}"
        (folder / name).write_bytes(content)
        row = _row(name, record, chosen, settings.strata)
        if masks := _write_masks(folder, number, record, settings, dropped):
            row["masks"] = masks
        rows.append(row)
        progress("writing pictures", number + 1, len(chosen.records))
    write_rows(folder / "metadata.jsonl", rows)
    write_rows(folder / "rejected.jsonl", funnel.rejected)
    manifest = _manifest(chosen, settings, funnel, expected) | ({"dropped_masks": dropped} if dropped else {})
    write_json(folder / MANIFEST, manifest)
    write_page(folder / "report.html", manifest, list(chosen.records.values()), rows, settings.source.limits)


def _write_masks(
    folder: Path, number: int, record: HumanRecord, settings: ValidationSetSettings, dropped: dict[str, str]
) -> dict[str, str]:
    """Write the painted masks of a record; return their paths by region. The reason for one that can't be decoded
    goes into `dropped`.
    """
    paths: dict[str, str] = {}
    for place, (region, mask) in enumerate(record.masks.items()):
        try:
            picture = decode_mask(mask, settings.source.limits)
        except PictureError as error:
            dropped[f"{record.key}, mask of {region}"] = str(error)
            continue
        paths[region] = f"masks/{number:05d}-{place}.png"
        (folder / "masks").mkdir(exist_ok=True)
        picture.save(folder / paths[region])
    return paths


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
        columns[region_column(region)] = boxes_to_lists(boxes)
    for part, boxes in chosen.found.boxes.get(record.key, {}).items():
        # a detector that finds nothing doesn't prove that there is none
        columns[region_column(part)] = boxes_to_lists(boxes) or None
        columns[f"{part}_by"] = chosen.found.names[part]
    return {**columns, "stratum": dict(zip(dimensions, chosen.strata[record.key], strict=True))}


def _manifest(
    chosen: _Chosen, settings: ValidationSetSettings, funnel: Funnel, expected: Mapping[str, Any]
) -> dict[str, Any]:
    draws = [draw_set(chosen.strata, settings, settings.seed + number) for number in range(settings.draws)]
    shares = value_shares(chosen.strata, settings.strata, list(chosen.records), draws)
    return {
        **expected,
        "stages": funnel.stages,
        "rejected": funnel.reasons(),
        "unknown": funnel.unknown,
        "usable": len(chosen.strata),
        "mix": {name: {value: asdict(share) for value, share in values.items()} for name, values in shares.items()},
        "overlap": mean_overlap(draws),
        "strata": _strata(chosen, settings),
        "pictures": {key: chosen.looks[key].digest for key in chosen.records},
    }


def _strata(chosen: _Chosen, settings: ValidationSetSettings) -> list[dict[str, Any]]:
    """Strata of a stratified set: usable and taken records, and whether the stratum is too small for its share."""
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
