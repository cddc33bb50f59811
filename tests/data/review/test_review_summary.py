"""Outcomes and counts of hand-worked decisions."""

from fairhuman.data.review.events import Decision
from fairhuman.data.review.summary import ReviewSummary, summarize, verdict_of

PROMPTS = {"a": "one", "b": "two", "c": "three", "d": "four"}


def said(number, reviewer, key, action, text=None):
    prompt, reason = (text or PROMPTS.get(key), None) if action == "keep" else (None, text or "other")
    return Decision(number, 1000.0 + number, reviewer, key, action, prompt, reason)


def test_the_majority_wins_and_a_tie_has_no_verdict():
    keep, drop = said(1, "Ada", "a", "keep"), said(2, "Bo", "a", "drop")
    assert verdict_of([keep, drop], "one").verdict is None
    assert verdict_of([keep, drop, said(3, "Cy", "a", "drop", "unclear")], "one").verdict == "drop"
    assert verdict_of([keep, drop, said(3, "Cy", "a", "drop", "unclear")], "one").decision.reason == "unclear"
    assert verdict_of([keep], "one").decision is keep


def test_an_edited_prompt_goes_before_a_later_unedited_one():
    edited, plain = said(1, "Ada", "a", "keep", "better"), said(2, "Bo", "a", "keep")
    assert verdict_of([edited, plain], "one").decision is edited
    assert verdict_of([edited, plain, said(3, "Cy", "a", "keep", "best")], "one").decision.prompt == "best"


def test_counts():
    decisions = [
        said(1, "Bo", "a", "keep"),
        said(2, "Ada", "a", "keep", "better"),
        said(3, "Ada", "b", "keep"),
        said(4, "Bo", "b", "drop"),
        said(5, "Ada", "c", "drop", "anatomy"),
        said(6, "Ada", "gone", "keep", "no more"),
    ]
    assert summarize(decisions, PROMPTS, needed=2) == ReviewSummary(
        pictures=4,
        done=2,
        left=2,
        kept=1,
        edited=1,
        dropped=1,
        disputed=1,
        reasons={"anatomy": 1},
        reviewers={"Ada": 3, "Bo": 2},
        several=2,
        agreed=1,
        unknown=1,
    )
    assert summarize(decisions, PROMPTS).done == 3
    assert summarize([], PROMPTS).left == 4


def test_what_is_said_names_undecided_and_disputed_pictures():
    decisions = [said(1, "Ada", "a", "keep", "better"), said(2, "Ada", "b", "drop", "anatomy")]
    assert summarize(decisions, PROMPTS).lines() == [
        "decided: 2 of 4 pictures",
        "kept: 1, 1 of them with a new prompt",
        "dropped: 1 (anatomy 1)",
        "decisions: 2 (Ada 2)",
        "undecided: 2; left out until they are decided and the review is applied again",
    ]
    more = [*decisions, said(3, "Bo", "a", "drop", "other"), said(4, "Bo", "c", "keep"), said(5, "Bo", "d", "keep")]
    text = " | ".join(summarize(more, PROMPTS, needed=2).lines())
    assert "undecided" not in text
    assert "disputed: 1, kept as often as dropped; left out" in text
    assert "fewer decisions than wanted: 3; the existing decisions count" in text
