"""What making a validation set would do: the lines of a dry run."""

from pathlib import Path

from fairhuman.data.pictures.filters import Clarity, active_filters, measure
from fairhuman.data.pictures.thresholds import harms
from fairhuman.data.validation.candidates import Funnel, read_candidates
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.data.validation.workplace import finished_set, identity
from fairhuman.report.text import plural


def plan_validation(source: Path, out: Path, settings: ValidationSetSettings) -> list[str]:
    """What `build_validation` would do, in lines: what is left of the source's rows, and how many pictures are decoded
    and how often a model is asked. Writes nothing, and reads headers of pictures alone.

    Raises:
        DataError: as of `build_validation`, as far as it can be told without decoding.
    """
    out = out.absolute()
    records = read_candidates(source, settings, Funnel())
    if finished_set(out, identity(settings, records.values())) is not None:
        return [f"{out}: already finished, nothing to do"]
    kinds = settings.detect.kinds if settings.detect is not None else {}
    rules = [rule for rule in active_filters(settings.filters, ()) if not isinstance(rule, Clarity)]
    late = [rule for rule in rules if any(part in kinds for part in rule.parts)]
    certain = [rule for rule in rules if rule not in late]
    unknown_kept = settings.filters.unknown == "keep"
    measures = [measure(record) for record in records.values()]
    left = [
        each
        for each in measures
        if all(rule.judge(each) is None for rule in rules)
        and (unknown_kept or all(rule.value(each) is not None for rule in certain))
    ]
    lines = [f"{source}: {plural(len(records), 'row')} can be read, {len(left)} pass what is known of the filters"]
    lines += [
        harm.line for harm in harms(certain, measures, "filters.", unknown_kept) + harms(late, measures, "filters.")
    ]
    blind = [rule for rule in late if any(rule.value(each) is None for each in left)]
    if blind:
        pictures = sum(any(rule.value(each) is None for rule in blind) for each in left)
        parts = dict.fromkeys(part for rule in blind for part in rule.parts if part in kinds)
        found = ", ".join(f"{part} ({kinds[part]})" for part in parts)
        lines.append(f"would find {found} in {plural(pictures, 'picture')}, if they aren't cached")
    few = "" if len(left) >= settings.count or settings.allow_fewer else "; fewer are an error without --allow-fewer"
    lines.append(f"would decode {plural(len(left), 'picture')}, and draw {settings.count} that are clear{few}")
    prompts = settings.prompts
    if prompts.kind == "rules":
        lines.append("would make prompts of captions by rules")
    else:
        model = getattr(prompts, prompts.kind).model
        lines.append(f"would ask {model} ({prompts.kind}) for about {min(settings.count, len(left))} prompts")
    return [*lines, f"would write the set to {out}"]
