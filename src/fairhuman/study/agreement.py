"""Inter-rater agreement beyond chance."""

from collections import Counter
from collections.abc import Sequence

from fairhuman.study.answers import Vote


def votes_alpha(votes: Sequence[Vote]) -> float:
    """α of votes: a unit is an item shown with a set of methods; its values are the best methods, several in a tie.

    Votes on different sets of methods can't agree or disagree, so expected disagreement is computed within each set and
    summed: 1 - Σ_s D_o / Σ_s D_e. If the same methods are always shown, this is the usual α.
    """
    sets: dict[frozenset[str], dict[str, list[str]]] = {}
    for vote in votes:
        sets.setdefault(frozenset(vote.shown), {}).setdefault(vote.item, []).append(repr(sorted(vote.top)))
    return krippendorff_alpha([list(units.values()) for units in sets.values()])


def krippendorff_alpha(sets: Sequence[Sequence[Sequence[str]]]) -> float:
    """Krippendorff's α for nominal values (Content Analysis, 2004, ch. 11): 1 agreement, 0 chance, below 0 dissent.

    α = 1 - D_o / D_e, where a unit u with m_u ≥ 2 values gives D_o = Σ_u Σ_c n_uc (m_u - n_uc) / (m_u - 1), and all n
    values of the units of a set D_e = Σ_c n_c (n - n_c) / (n - 1); both are summed over sets.

    Args:
        sets: units by set; each unit holds its values, one per rater. The result is NaN if all values are the same, or
            if no unit has two.
    """
    observed = expected = 0.0
    for units in sets:
        paired = [Counter(values) for values in units if len(values) > 1]
        total = sum(paired, Counter())
        n = total.total()
        for counts in paired:
            m = counts.total()
            observed += sum(count * (m - count) for count in counts.values()) / (m - 1)
        expected += sum(count * (n - count) for count in total.values()) / (n - 1) if n else 0.0
    return 1 - observed / expected if expected else float("nan")
