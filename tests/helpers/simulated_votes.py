"""Participants with known preferences."""

from collections.abc import Sequence

import numpy as np

from fairhuman.study.answers import Vote


def vote(
    participant: object,
    shown: Sequence[str],
    chosen: str | None,
    item: object = 0,
    *,
    trial: int = 0,
    question: str = "overall",
    seconds: float = 4.0,
    better: str | None = None,
) -> Vote:
    """A vote; methods may be a word of their letters."""
    return Vote(
        str(participant), trial, question, f"prompt {item}", tuple(shown), chosen, seconds, "", str(item), better
    )


def simulate(
    strengths: dict[str, float],
    generator: np.random.Generator,
    *,
    people: int = 20,
    items: int = 20,
    ties: float = 0.3,
    of_people: float = 0.5,
    of_items: float = 0.8,
) -> list[Vote]:
    """Davidson's model; each participant and each item moves each method's strength by a normal number."""
    names, theta_m = list(strengths), np.array(list(strengths.values()))
    moved_p = generator.normal(0, of_people, (people, 1, len(names)))
    moved_i = generator.normal(0, of_items, (1, items, len(names)))
    order_pim = generator.random((people, items, len(names))).argsort(axis=2)
    logs_pik = np.take_along_axis(theta_m + moved_p + moved_i, order_pim, axis=2)[..., :2]
    tie_pi1 = np.log(max(ties, 1e-300)) + logs_pik.mean(axis=2, keepdims=True)
    noise_pio = generator.gumbel(size=(people, items, 3))  # the largest of logits plus Gumbel noise is a fair draw
    chosen_pi = (np.concatenate([logs_pik, tie_pi1], axis=2) + noise_pio).argmax(axis=2)
    votes = []
    for person, of_person in enumerate(order_pim.tolist()):
        for item, (a, b, *_) in enumerate(of_person):
            shown = (names[a], names[b])
            chosen = (*shown, None)[chosen_pi[person, item]]
            votes.append(vote(person, shown, chosen, item, trial=item))
    return votes
