"""What mode output fits to exact steps."""

import math

import pytest
import torch
from torch import Tensor

from fairhuman.fairness.estimators.output import OutputGains

INTERCEPTS, SLOPES = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([-0.3, 0.2, 0.0])


def cotangents(seed: int, samples: int = 4) -> tuple[list[Tensor | None], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(3, samples, 4, 8, 8, generator=generator)
    found[1, ..., 4:] = 0.0
    found[2, ..., :4] = 0.0
    return list(found), 4.0 * torch.randn(samples, generator=generator)


def exact(found: list[Tensor | None], level: float) -> Tensor:
    """M for gains that follow the model, with samples of one noise level; cosines are those of the output."""
    flat = torch.stack([torch.zeros(1024) if c is None else c.flatten() for c in found]).double()
    roots = (INTERCEPTS + SLOPES * level).div(2.0).exp().double()
    return (flat @ flat.T) * torch.outer(roots, roots)


def taught(steps: int, memory: float = 1.0) -> OutputGains:
    gains = OutputGains(memory)
    for seed in range(steps):
        found, levels = cotangents(seed)
        gains.update(gains.features(found, levels[:1].expand(4)), exact(found, float(levels[0])))
    return gains


def test_gains_that_depend_on_the_noise_level_are_fitted() -> None:
    gains = taught(16)
    for seed in range(100, 110):
        found, levels = cotangents(seed)
        guess = gains.predict(gains.features(found, levels[:1].expand(4)))
        torch.testing.assert_close(guess, exact(found, float(levels[0])), rtol=0.05, atol=1e-9)


def test_before_the_first_exact_step_the_gains_are_one() -> None:
    found, levels = cotangents(0)
    flat = torch.stack([c.flatten() for c in found if c is not None]).double()
    torch.testing.assert_close(OutputGains().predict(OutputGains().features(found, levels)), flat @ flat.T)


def test_samples_of_several_levels_count_by_their_energy() -> None:
    found, levels = cotangents(0)
    features = OutputGains().features(found, levels)
    energy_b = found[0].double().square().flatten(1).sum(dim=1)
    assert float(features[1, 0, 0]) == pytest.approx(float(energy_b @ levels.double()), rel=1e-6)
    halves = [OutputGains().features([c[part] for c in found], levels[part]) for part in (slice(2), slice(2, 4))]
    torch.testing.assert_close(halves[0] + halves[1], features, msg="processes sum theirs")
    assert not OutputGains().features(found, None)[1].any()


def test_absent_objectives_and_non_finite_steps_are_ignored() -> None:
    gains = taught(8)
    before = gains.state_dict()
    found, levels = cotangents(50)
    found[1] = None
    gram = exact(found, 1.0)
    gram[1], gram[:, 1] = 0.0, 0.0
    gains.update(gains.features(found, levels), gram)
    torch.testing.assert_close(gains.state_dict()["squares"][1], before["squares"][1])
    assert float((gains.state_dict()["squares"][0] - before["squares"][0]).abs().sum()) > 0.0
    assert not gains.predict(gains.features(found, levels))[1].any()
    kept = gains.state_dict()
    gains.update(gains.features(found, levels), gram * math.inf)
    assert all(torch.equal(one, kept[name]) for name, one in gains.state_dict().items())


def test_old_steps_fade() -> None:
    found, levels = cotangents(0)
    features = OutputGains().features(found, levels)
    ratios = []
    for memory in (1.0, 0.5):
        gains = taught(16, memory)
        for _ in range(4):
            gains.update(features, 100.0 * exact(found, 0.0))  # another network by now
        ratios.append(float(gains.predict(features)[0, 0] / exact(found, 0.0)[0, 0]))
    assert ratios[0] < 10.0 < 50.0 < ratios[1]


def test_gains_resume_from_their_state() -> None:
    gains, other = taught(5), OutputGains(1.0)
    other.load_state_dict(gains.state_dict())
    found, levels = cotangents(7)
    assert torch.equal(gains.predict(gains.features(found, levels)), other.predict(other.features(found, levels)))
