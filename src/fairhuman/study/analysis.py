"""Analysis of a study, for all participants and after exclusion."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fairhuman.stats.estimate import Estimate
from fairhuman.study.agreement import votes_alpha
from fairhuman.study.answers import Vote, Votes
from fairhuman.study.bias import AnswerTimes, PlaceBalance, answer_times, place_balance, place_shares
from fairhuman.study.bradley_terry import Strengths, fit_strengths
from fairhuman.study.exclusion import ParticipantConduct, judge_participants, keep_votes
from fairhuman.study.intervals import index_keys
from fairhuman.study.scores import PairRecord, mean_rank, method_score, pair_records
from fairhuman.study.study import StudySettings


@dataclass(frozen=True, slots=True)
class StudyResult:
    """Results of one question for a set of participants, without attention checks.

    Attributes:
        votes, participants, items: their numbers.
        ties: number of votes that are ties, of all pictures or of the best ones.
        scores: the paper's score by method.
        ranks: mean rank by method, for those that were ranked.
        meetings: record of each ordered pair of methods.
        strengths: strengths in Davidson's model.
        alpha: Krippendorff's α.
        places: share of each position from left to right among votes without ties.
        times: answer times.
        balance: balance of methods over positions.
    """

    votes: int
    participants: int
    items: int
    ties: int
    scores: Mapping[str, Estimate]
    ranks: Mapping[str, Estimate]
    meetings: Mapping[tuple[str, str], PairRecord]
    strengths: Strengths
    alpha: float
    places: Sequence[Estimate]
    times: AnswerTimes
    balance: PlaceBalance


@dataclass(frozen=True, slots=True)
class Analysis:
    """All results of a study.

    Attributes:
        methods: names in the order of the design, then alphabetically.
        questions: names in the order of the settings, then of appearance.
        conduct: conduct of each participant who answered.
        everybody, kept: results by question, for all participants and after exclusion.
    """

    methods: tuple[str, ...]
    questions: tuple[str, ...]
    conduct: Sequence[ParticipantConduct]
    everybody: Mapping[str, StudyResult]
    kept: Mapping[str, StudyResult]

    @property
    def out(self) -> list[ParticipantConduct]:
        """The excluded participants."""
        return [one for one in self.conduct if one.reasons]


def analyse(votes: Votes, settings: StudySettings, methods: Sequence[str] = ()) -> Analysis:
    """Analyse votes; `methods` of the design, if there is one, come first."""
    real = [vote for vote in votes.votes if vote.better is None]
    names = tuple(dict.fromkeys([*methods, *sorted({name for vote in real for name in vote.shown})]))
    found = {vote.question for vote in real}
    known = [question.name for question in settings.questions if question.name in found]
    questions = tuple(dict.fromkeys([*known, *(vote.question for vote in real)]))
    conduct = judge_participants(votes, settings.exclude)
    everybody = {question: _result(real, question, names) for question in questions}
    if any(one.reasons for one in conduct):
        stay = keep_votes(real, conduct)
        kept = {question: _result(stay, question, names) for question in questions}
    else:
        kept = everybody
    return Analysis(names, questions, conduct, everybody, kept)


def document(analysis: Analysis, votes: Votes, settings: StudySettings, notes: Sequence[str]) -> dict[str, Any]:
    """The results as a JSON document; NaN becomes null."""
    content = {
        "title": settings.title,
        "methods": list(analysis.methods),
        "everybody": {question: _plain(result) for question, result in analysis.everybody.items()},
        "kept": {question: _plain(result) for question, result in analysis.kept.items()},
        "participants": [asdict(one) for one in analysis.conduct],
        "expected_answers": votes.expected,
        "bad_rows": votes.bad,
        "notes": list(notes),
        "settings": settings.model_dump(mode="json"),
    }
    return {name: _without_nan(value) for name, value in content.items()}


def _result(votes: Sequence[Vote], question: str, methods: Sequence[str]) -> StudyResult:
    votes = [vote for vote in votes if vote.question == question]
    return StudyResult(
        votes=len(votes),
        participants=index_keys([vote.participant for vote in votes])[1],
        items=index_keys([vote.item for vote in votes])[1],
        ties=sum(vote.chosen is None for vote in votes),
        scores={method: method_score(votes, method) for method in methods},
        ranks={method: rank for method in methods if (rank := mean_rank(votes, method)) is not None},
        meetings=pair_records(votes, methods),
        strengths=fit_strengths(votes, methods),
        alpha=votes_alpha(votes),
        places=place_shares(votes),
        times=answer_times(votes),
        balance=place_balance(votes, methods),
    )


def _plain(result: StudyResult) -> dict[str, Any]:
    plain = asdict(result)
    plain["meetings"] = [{"method": a, "against": b, **asdict(found)} for (a, b), found in result.meetings.items()]
    return plain


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value
