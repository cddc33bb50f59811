"""From decisions to outcomes and counts; nothing here touches a disk."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairhuman.data.review.events import DROP, KEEP, Decision


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the reviewers of one picture say together.

    Attributes:
        verdict: `keep` or `drop` by the majority, None where as many say the one as the other.
        decision: the last one of that majority, an edited prompt before an unedited one; the last one of all where
            there is no majority.

    """

    verdict: str | None
    decision: Decision


@dataclass(frozen=True, slots=True)
class ReviewSummary:
    """Counts of a review.

    Attributes:
        pictures: in the folder; each is `done` or `left`.
        done: have as many decisions as were asked for.
        kept, dropped, disputed: pictures by outcome, those with at least one decision.
        edited: of those kept, with another prompt than before.
        reasons: of the pictures that are dropped.
        reviewers: number of decisions by name.
        several: pictures with two or more decisions.
        agreed: of these, all the same (keep or drop).
        unknown: decisions on keys that the folder doesn't have any more.

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


def verdict_of(decisions: Sequence[Decision], prompt: str) -> Verdict:
    """What at least one decision on a picture, whose prompt was `prompt`, comes to."""
    votes = Counter(decision.action for decision in decisions)
    if votes[KEEP] == votes[DROP]:
        return Verdict(None, decisions[-1])
    verdict = KEEP if votes[KEEP] > votes[DROP] else DROP
    agreeing = [decision for decision in decisions if decision.action == verdict]
    edited = [decision for decision in agreeing if decision.prompt not in (None, prompt)]
    return Verdict(verdict, (edited or agreeing)[-1])


def outcomes(decisions: Sequence[Decision], prompts: Mapping[str, str]) -> dict[str, Verdict]:
    """Outcome by key, in the order of `prompts`, for the pictures that somebody has decided on."""
    by_key = by_picture(decisions)
    return {key: verdict_of(by_key[key], prompt) for key, prompt in prompts.items() if key in by_key}


def by_picture(decisions: Sequence[Decision]) -> dict[str, list[Decision]]:
    """Decisions by the key of their picture."""
    found: dict[str, list[Decision]] = defaultdict(list)
    for decision in decisions:
        found[decision.key].append(decision)
    return dict(found)


def summarize(decisions: Sequence[Decision], prompts: Mapping[str, str], needed: int = 1) -> ReviewSummary:
    """Count what stands.

    Args:
        decisions: that stand, in the order they were made.
        prompts: of each picture, before the review.
        needed: decisions that make a picture done, ≥ 1.

    """
    known = [decision for decision in decisions if decision.key in prompts]
    found = outcomes(known, prompts)
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
