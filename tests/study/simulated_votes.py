"""Participants with known preferences."""

import numpy as np

from fairhuman.study.answers import Vote


def vote(
    participant: object,
    shown: str,
    chosen: str | None,
    item: object = 0,
    *,
    trial: int = 0,
    question: str = "overall",
    seconds: float = 4.0,
    better: str | None = None,
) -> Vote:
    """A vote between methods of one letter each."""
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
    names = list(strengths)
    moved_p = generator.normal(0, of_people, (people, len(names)))
    moved_i = generator.normal(0, of_items, (items, len(names)))
    votes = []
    for person in range(people):
        for item in range(items):
            a, b = generator.choice(len(names), 2, replace=False)
            log_a, log_b = (strengths[names[m]] + moved_p[person, m] + moved_i[item, m] for m in (a, b))
            weights = np.array([np.exp(log_a), np.exp(log_b), ties * np.exp((log_a + log_b) / 2)])
            chosen = [names[a], names[b], None][generator.choice(3, p=weights / weights.sum())]
            votes.append(vote(person, names[a] + names[b], chosen, item, trial=item))
    return votes
