"""Verdicts and counts from decisions; pure functions."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairhuman.data.review.events import DROP, KEEP, Decision
from fairhuman.report.text import plural


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reviewers' combined decision on one picture.

    Attributes:
        verdict: `keep` or `drop` by majority; None in a tie.
        decision: the last decision of the majority, preferring one with an edited prompt; in a tie, the last of all.
    """

    verdict: str | None
    decision: Decision


def _counts(numbers: Mapping[str, int]) -> str:
    """` (Ada 4, Bo 2)`, empty for no numbers."""
    return f" ({', '.join(f'{name} {number:,}' for name, number in numbers.items())})" if numbers else ""


@dataclass(frozen=True, slots=True)
class ReviewSummary:
    """Counts of a review.

    Attributes:
        pictures: pictures in the folder; each is `done` or `left`.
        done: pictures with the required number of decisions.
        kept, dropped, disputed: pictures with at least one decision, by verdict.
        edited: kept pictures with a changed prompt.
        reasons: number of dropped pictures by reason.
        reviewers: number of decisions by name.
        several: pictures with two or more decisions.
        agreed: pictures of `several` whose decisions are all the same (keep or drop).
        unknown: decisions on keys that are no longer in the folder.
    """

    pictures: int
    done: int
    left: int
    kept: int
    edited: int
    dropped: int
    disputed: int
    reasons: dict[str, int]
    reviewers: dict[str, int]
    several: int
    agreed: int
    unknown: int

    @property
    def undecided(self) -> int:
        """Number of pictures without any decision."""
        return self.pictures - self.kept - self.dropped - self.disputed

    def lines(self) -> list[str]:
        """What was decided and by whom, and what happens with the pictures that aren't kept, a fact a line."""
        found = [
            f"decided: {self.pictures - self.undecided:,} of {plural(self.pictures, 'picture')}",
            f"kept: {self.kept:,}, {self.edited:,} of them with a new prompt",
            f"dropped: {self.dropped:,}{_counts(self.reasons)}",
            f"decisions: {sum(self.reviewers.values()):,}{_counts(self.reviewers)}",
        ]
        if self.several:
            found.append(f"several reviewers: {plural(self.several, 'picture')}, the same decision on {self.agreed:,}")
        found += self.left_out()
        if short := self.left - self.undecided:
            found.append(f"fewer decisions than wanted: {short:,}; the existing decisions count")
        if self.unknown:
            found.append(f"decisions on pictures that are no longer in the set: {self.unknown:,}; ignored")
        return found

    def left_out(self) -> list[str]:
        """The pictures that are left out although they weren't dropped, a fact a line."""
        found = []
        if self.disputed:
            found.append(f"disputed: {self.disputed:,}, kept as often as dropped; left out")
        if self.undecided:
            found.append(
                f"undecided: {self.undecided:,}; left out until they are decided and the review is applied again"
            )
        return found


def verdict_of(decisions: Sequence[Decision], prompt: str) -> Verdict:
    """The verdict of one or more decisions on a picture with the original prompt `prompt`."""
    votes = Counter(decision.action for decision in decisions)
    if votes[KEEP] == votes[DROP]:
        return Verdict(None, decisions[-1])
    verdict = KEEP if votes[KEEP] > votes[DROP] else DROP
    agreeing = [decision for decision in decisions if decision.action == verdict]
    edited = [decision for decision in agreeing if decision.prompt not in (None, prompt)]
    return Verdict(verdict, (edited or agreeing)[-1])


def verdicts(decisions: Sequence[Decision], prompts: Mapping[str, str]) -> dict[str, Verdict]:
    """Verdict by key, in the order of `prompts`, for pictures with a decision."""
    by_key = by_picture(decisions)
    return {key: verdict_of(by_key[key], prompt) for key, prompt in prompts.items() if key in by_key}


def by_picture(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    """Decisions grouped by the key of their picture."""
    found: dict[str, list[Decision]] = defaultdict(list)
    for decision in decisions:
        found[decision.key].append(decision)
    return dict(found)


def summarize(decisions: Sequence[Decision], prompts: Mapping[str, str], needed: int = 1) -> ReviewSummary:
    """Count standing decisions, given in the order they were made; each picture needs `needed`, at least 1."""
    known = [decision for decision in decisions if decision.key in prompts]
    found = verdicts(known, prompts)
    of_verdict = Counter(each.verdict for each in found.values())
    groups = by_picture(known).values()
    several = [group for group in groups if len(group) > 1]
    done = sum(len(group) >= needed for group in groups)
    kept = [(key, each.decision) for key, each in found.items() if each.verdict == KEEP]
    reasons = Counter(str(each.decision.reason) for each in found.values() if each.verdict == DROP)
    return ReviewSummary(
        pictures=len(prompts),
        done=done,
        left=len(prompts) - done,
        kept=of_verdict[KEEP],
        edited=sum(decision.prompt != prompts[key] for key, decision in kept),
        dropped=of_verdict[DROP],
        disputed=of_verdict[None],
        reasons=dict(reasons.most_common()),
        reviewers=dict(sorted(Counter(decision.reviewer for decision in known).items())),
        several=len(several),
        agreed=sum(len({decision.action for decision in group}) == 1 for group in several),
        unknown=len(decisions) - len(known),
    )
