"""The report of a study: the paper's scores, pairwise comparisons, and checks of their validity."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairhuman.config import to_yaml
from fairhuman.report.colours import colours
from fairhuman.report.html import figure_uri, render_to
from fairhuman.report.plots import INK, dress, without_glyph_warnings
from fairhuman.report.text import percent, plural
from fairhuman.stats.estimate import Estimate
from fairhuman.study.analysis import Analysis, StudyResult, analyse, document
from fairhuman.study.answers import Votes, write_votes
from fairhuman.study.exclusion import ParticipantConduct, excluded_line
from fairhuman.study.study import StoredStudy, StudySettings
from fairhuman.study.verdict import share_text, verdict_text
from fairhuman.utils.files import write_atomically, write_json

PAGE, CHART, RESULTS, ANSWERS = "report.html", "scores.png", "results.json", "answers.csv"
FAINT = 0.35  # opacity of the bars before exclusion
UNBROKEN = ",\N{NO-BREAK SPACE}"  # between the ends of an interval
NAME = 12  # characters of a line of a method's name below its bar


@dataclass(frozen=True)
class StudyFacts:
    """Facts about a study beyond its answers: the design's methods and planned participants, how it was made, and its
    excluded prompts with reasons, and whether a rule of exclusion was changed later. Without a design there are no
    methods, and `planned` is None.
    """

    methods: Sequence[str] = ()
    planned: int | None = None
    notes: Sequence[str] = ()
    left_out: Sequence[str] = ()
    changed_rules: bool = False

    @classmethod
    def of(cls, study: StoredStudy | None) -> "StudyFacts":
        """Facts from a study's folder; empty without one."""
        if study is None:
            return cls()
        return cls(study.design.methods, len(study.design.participants), *study.creation(), study.changed_rules())


def write_report(votes: Votes, settings: StudySettings, facts: StudyFacts, out: Path) -> Path:
    """Write the page, the chart, the results and the raw answers into `out`; return the page's path."""
    analysis = analyse(votes, settings, facts.methods)
    texts = {question.name: question.text for question in settings.questions}
    figure = scores_figure(analysis)
    write_votes(votes.votes, out / ANSWERS)
    write_json(out / RESULTS, document(analysis, votes, settings, facts.notes))
    with without_glyph_warnings():
        write_atomically(out / CHART, partial(figure.savefig, format="png", metadata={"Software": None}))
    return render_to(
        out / PAGE,
        "study.html",
        title=settings.title,
        counted=votes.counted(),
        verdicts=_verdicts(analysis),
        facts=_facts(analysis, facts),
        charts=[figure_uri(figure), figure_uri(scores_figure(analysis, stacked=True))],
        methods=analysis.methods,
        planned=facts.planned is not None,
        changed_rules=facts.changed_rules,
        questions=[(name, texts.get(name, ""), _groups(analysis, name)) for name in analysis.questions],
        excluded=len(analysis.out),
        rules=_rules(settings),
        participants=[_participant(one) for one in analysis.conduct],
        failures=_failures(analysis.conduct),
        balances=[(name, *_balance(analysis.everybody[name])) for name in analysis.questions],
        bad=votes.bad_lines(),
        bad_count=len(votes.bad),
        notes=facts.notes,
        left_out=facts.left_out,
        settings_text=to_yaml(settings),
    )


def _verdicts(analysis: Analysis) -> list[str]:
    """A sentence for each question; one alone where everybody is excluded."""
    if analysis.conduct and len(analysis.out) == len(analysis.conduct):
        line = excluded_line(analysis.conduct) or ""
        return [f"{line[0].upper()}{line[1:]}: no verdict."]
    return [verdict_text(name, analysis.kept[name], analysis.methods) for name in analysis.questions]


def scores_figure(analysis: Analysis, stacked: bool = False) -> Figure:
    """One panel per question, one bar per method with its interval; faint bars show all participants.

    The panels are side by side with upright bars, or `stacked` with lying ones for a phone.
    """
    both = bool(analysis.out)
    count, methods = max(len(analysis.questions), 1), analysis.methods
    if stacked:
        size, shape = (4.2, 0.9 + count * (0.7 + 0.6 * len(methods))), (count, 1)
    else:
        size, shape = (max(4.6, 1.1 + 0.95 * len(methods) * (1.3 if both else 1.0)) * count, 4.0), (1, count)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    panels = figure.subplots(*shape, sharex=stacked, sharey=not stacked, squeeze=False).ravel()
    for axes, question in zip(panels, analysis.questions, strict=False):
        groups = [(analysis.everybody, FAINT, -0.21), (analysis.kept, 1.0, 0.21)] if both else [(analysis.kept, 1.0, 0)]
        for results, alpha, shift in groups:
            found = [results[question].scores[method] for method in methods]
            _bars(axes, found, list(colours(methods).values()), alpha, shift, 0.4 if both else 0.6, stacked)
        _dress(axes, question, methods, stacked)
    name_axis = panels[-1].set_xlabel if stacked else panels[0].set_ylabel
    name_axis("score (1 best, 0.5 tied for best, 0 otherwise)", fontsize=10, color=INK)
    if both:
        parts = ["faint: all participants; solid: after exclusion;", "lines: 95 % intervals"]
        figure.supxlabel(("\n" if stacked else " ").join(parts), fontsize=9)
    return figure


def _bars(
    axes: Axes, found: Sequence[Estimate], palette: Sequence[str], alpha: float, shift: float, width: float, lying: bool
) -> None:
    """A bar with its interval and value for each estimate."""
    values = np.array([one.value for one in found])
    ends = np.maximum(np.array([[one.value - one.low, one.high - one.value] for one in found]).T, 0)
    places = np.arange(len(found)) + shift
    if lying:
        axes.barh(places, np.nan_to_num(values), width, color=palette, alpha=alpha)
        axes.errorbar(values, places, xerr=ends, fmt="none", ecolor=INK, elinewidth=1.3, capsize=4)
    else:
        axes.bar(places, np.nan_to_num(values), width, color=palette, alpha=alpha)
        axes.errorbar(places, values, ends, fmt="none", ecolor=INK, elinewidth=1.3, capsize=4)
    for place, one in zip(places, found, strict=True):
        top = (one.high if np.isfinite(one.high) else one.value) + 0.015
        x, y, across, along = (top, place, "left", "center") if lying else (place, top, "center", "bottom")
        if np.isfinite(one.value):
            axes.text(x, y, f"{one.value:.2f}", ha=across, va=along, fontsize=9, color=INK)


def _dress(axes: Axes, question: str, methods: Sequence[str], lying: bool) -> None:
    if lying:
        axes.axvline(0.5, color="#888888", linewidth=1.0, linestyle=":", zorder=0)
        for place, method in enumerate(methods):  # above the bars, so that these have the whole width
            axes.text(0.01, place - 0.44, method, va="bottom", fontsize=9, color=INK, parse_math=False)
        axes.set_yticks([])
        axes.set_ylim(len(methods) - 0.4, -1.0)
        axes.set_xlim(0, 1.15)
    else:
        axes.axhline(0.5, color="#888888", linewidth=1.0, linestyle=":", zorder=0)
        lines = [fill(method, NAME) for method in methods]
        axes.set_xticks(range(len(methods)), lines, fontsize=10, parse_math=False)
        axes.set_ylim(0, 1.08)
    axes.set_title(question, fontsize=12, color=INK, loc="left", fontweight="bold", parse_math=False)
    dress(axes, "x" if lying else "y")


def _facts(analysis: Analysis, facts: StudyFacts) -> list[tuple[str, str]]:
    results = list(analysis.everybody.values())
    votes = sum(result.votes for result in results)
    answered = len(analysis.conduct)
    planned = f" of {facts.planned}" if facts.planned is not None else ""
    return [
        ("participants who answered", f"{answered}{planned}"),
        ("excluded by the rules", str(len(analysis.out))),
        ("methods", str(len(analysis.methods))),
        ("items", str(max((result.items for result in results), default=0))),
        ("answers", f"{votes:,}"),
        ("ties", percent(sum(result.ties for result in results) / votes) if votes else "-"),
    ]


def _groups(analysis: Analysis, question: str) -> list[dict[str, Any]]:
    """Results of a question for all participants and, if somebody is excluded, after exclusion."""
    groups = [("All participants", analysis.everybody[question])]
    if analysis.out:
        groups.append(("After exclusion", analysis.kept[question]))
    return [{"name": name, **_numbers(result, analysis.methods)} for name, result in groups]


def _numbers(result: StudyResult, methods: Sequence[str]) -> dict[str, Any]:
    half = result.times.percentiles
    return {
        "sample": f"{plural(result.participants, 'participant')}, {plural(result.votes, 'answer')}",
        "votes": result.votes,
        "methods": [
            (
                name,
                colour,
                _estimate(result.scores[name]),
                _strength(result.strengths.of[name]),
                _estimate(result.ranks[name]) if name in result.ranks else "-",
            )
            for name, colour in colours(methods).items()
        ],
        "ranked": bool(result.ranks),
        "matrix": [(a, ["" if a == b else _meeting(result, a, b) for b in methods]) for a in methods],
        "connected": result.strengths.connected,
        "lines": [
            ("Krippendorff's α", _number(result.alpha, "{:.3f}")),
            ("ties", f"{result.ties:,} ({percent(result.ties / result.votes)})" if result.votes else "-"),
            ("tie parameter ν", _number(result.strengths.ties, "{:.3f}") if result.votes else "-"),
            *((f"position {place} chosen", share_text(one)) for place, one in enumerate(result.places, 1)),
            (
                "seconds per answer",
                f"median {half[2]:.1f}, quartiles {half[1]:.1f} to {half[3]:.1f}" if result.times.n else "-",
            ),
        ],
    }


def _meeting(result: StudyResult, a: str, b: str) -> tuple[str, str, str]:
    """Share, interval and counts of a pair of methods."""
    met = result.meetings[a, b]
    share, _, ends = share_text(met.share).partition(" [")
    return share, ends and f"[{ends}", f"{met.wins} : {met.losses} : {met.ties}"


def _estimate(estimate: Estimate, form: str = "{:.2f}") -> str:
    """A number with its interval, if it has one, all with the decimals of the chart; a dash for NaN."""
    if not np.isfinite(estimate.value):
        return "-"
    value, *ends = (form.format(round(one, 2) + 0.0) for one in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{UNBROKEN.join(ends)}]" if np.isfinite(estimate.low) else value


def _strength(estimate: Estimate) -> str:
    """A strength with its interval; a dash for a method that nobody was shown."""
    return _estimate(estimate, "{:+.2f}") if estimate.n else "-"


def _number(value: float, form: str) -> str:
    return form.format(value) if np.isfinite(value) else "-"


def _rules(settings: StudySettings) -> list[str]:
    rules = settings.exclude
    return [
        f"more than {rules.max_failed_checks} failed attention checks (a tie fails the check)",
        f"a median answer time below {rules.min_seconds:g} s",
        f"more than {percent(rules.max_same_side)} of the answers for the same position",
        f"answers to fewer than {percent(rules.min_answers)} of the questions",
        *(
            [
                "answer times longer than the server's clock allows in more than "
                f"{percent(rules.max_overclaimed)} of answers"
            ]
            if rules.max_overclaimed is not None
            else []
        ),
    ]


def _participant(one: ParticipantConduct) -> tuple[str, str, str, str, str, str, str]:
    return (
        one.participant,
        f"{one.answers} ({percent(one.share)})",
        f"{one.failed} of {one.checks}",
        _number(one.seconds, "{:.1f}"),
        str(one.overclaimed),
        percent(one.same_side),
        "; ".join(one.reasons),
    )


def _failures(conduct: Sequence[ParticipantConduct]) -> str:
    """Number of participants by number of failed checks, as a sentence."""
    asked = [one.failed for one in conduct if one.checks]
    if not asked:
        return "No attention checks were answered."
    if not any(asked):
        return f"Nobody failed an attention check, of {plural(len(asked), 'participant')} who answered some."
    counts = [f"{asked.count(number)} failed {number or 'none'}" for number in sorted(set(asked))]
    return f"Of {plural(len(asked), 'participant')} who answered attention checks, {', '.join(counts)}."


def _balance(result: StudyResult) -> tuple[list[tuple[str, tuple[int, ...]]], str, str]:
    found = result.balance
    return list(found.counts.items()), _number(found.statistic, "{:.2f}"), _number(found.p, "{:.3f}")
