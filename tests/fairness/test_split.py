"""Mode split: when it is exact, how close it is otherwise, what it refuses."""

from collections.abc import Iterator, Sequence
from itertools import count, pairwise

import pytest
import torch
from torch import Tensor, nn

from fairhuman.fairness import FairBackward, MinimumPotentialDelay, SplitEstimator
from fairhuman.fairness.estimators.cut import CutPoint
from fairhuman.fairness.estimators.estimator import EstimatorError, GramEstimate, MicroBatch
from fairhuman.fairness.estimators.shares import RegionShares
from helpers.small_unet import fair_backward, flat_grad, losses, small_unet, take, trained, true_gradients

PLACES = [CutPoint(1, 1), CutPoint(1), CutPoint(0, 1)]


def split_at(unet: nn.Module, place: CutPoint, every: int = 0) -> SplitEstimator:
    return SplitEstimator(unet, trained(unet), every, place=place)


def changing_weights() -> Iterator[list[float]]:
    """Return different weights on each call."""
    for number in count(1):
        yield [1.0 + 0.1 * number, 2.0 - 0.3 * (number % 3), 0.5 * number]


def estimate(split: SplitEstimator, unet: nn.Module, absent: Sequence[int], fixed: bool) -> GramEstimate:
    """A step whose weights don't come from the Gram matrix."""
    weights = changing_weights()

    def weigh(gram: Tensor) -> list[float]:
        found = [1.0, 2.0, 3.0] if fixed else next(weights)
        return [w if gram[i, i] > 0 else 0.0 for i, w in enumerate(found)]

    split.begin(weigh, None)
    found, output = losses(unet)
    split.add(MicroBatch([None if i in absent else loss for i, loss in enumerate(found)], output))
    return split.finish(1.0)


def flat(direction: Sequence[Tensor | None], unet: nn.Module) -> Tensor:
    pairs = zip(direction, trained(unet), strict=True)
    return torch.cat([(torch.zeros_like(p) if d is None else d).double().reshape(-1) for d, p in pairs])


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("absent", [(), (0,), (1,)], ids=str)
def test_it_is_exact_if_the_weights_equal_the_refined_ones(place: CutPoint, absent: tuple[int, ...]) -> None:
    unet = small_unet()
    rows = true_gradients(unet)
    found = estimate(split_at(unet, place), unet, absent, fixed=True)
    assert [w > 0 for w in found.weights] == [i not in absent for i in range(3)]
    torch.testing.assert_close(
        flat(found.direction, unet), torch.tensor(found.weights, dtype=torch.float64) @ rows, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "place", [PLACES[0], *(pytest.param(place, marks=pytest.mark.slow) for place in PLACES[1:])], ids=str
)
@pytest.mark.parametrize("absent", [(1,), (2,), (1, 2), (0, 1)], ids=str)
def test_with_one_region_or_none_it_is_exact_for_any_weights(place: CutPoint, absent: tuple[int, ...]) -> None:
    unet = small_unet()
    rows = true_gradients(unet)
    found = estimate(split_at(unet, place), unet, absent, fixed=False)
    torch.testing.assert_close(
        flat(found.direction, unet), torch.tensor(found.weights, dtype=torch.float64) @ rows, rtol=1e-5, atol=1e-6
    )


def test_a_step_without_a_region_is_the_plain_one() -> None:
    unet = small_unet()
    rows = true_gradients(unet)
    fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=split_at(unet, CutPoint(1)))
    found, output = losses(unet)
    unet.zero_grad()
    fair([found[0], None, None], output=output)
    torch.testing.assert_close(flat_grad(unet), rows[0] / rows[0].norm(), rtol=0.0, atol=1e-6)


def cosines_of(fair: FairBackward, unet: nn.Module) -> list[float]:
    """Of twelve ordinary steps to the exact directions."""
    exact = FairBackward(trained(unet), MinimumPotentialDelay())
    cosines = []
    for seed in range(12):
        take(exact, unet, seed)
        wanted = flat_grad(unet)
        assert not take(fair, unet, seed).exact
        cosines.append(float(torch.nn.functional.cosine_similarity(wanted, flat_grad(unet), dim=0)))
    return cosines


def test_with_two_regions_it_is_close_to_exact() -> None:
    unet = small_unet()
    fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=split_at(unet, CutPoint(0, 1)))
    cosines = cosines_of(fair, unet)
    assert min(cosines) > 0.9
    assert sum(cosines) / len(cosines) > 0.97


def test_gains_learn_from_exact_steps_alone() -> None:
    """With a small first weight the first gradient is mostly noise; its norm would shrink that weight further."""
    unet = small_unet()
    split = SplitEstimator(unet, trained(unet), every=3, trial=2)
    fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=split)
    seen, exact = [], []
    for seed in range(8):
        exact.append(take(fair, unet, seed).exact)
        seen.append(split.gains.state_dict()["squares"].clone())
    assert exact == [True, True, False, True, False, False, True, False]
    learnt = [not torch.equal(one, other) for one, other in pairwise(seen)]
    assert learnt == exact[1:]


def test_audits_compare_whole_directions() -> None:
    unet = small_unet()
    exact = FairBackward(trained(unet), MinimumPotentialDelay())
    for seed in range(3):
        plain, audited = (  # of the first step, whose gains have learnt nothing
            FairBackward(trained(unet), MinimumPotentialDelay(), estimator=split_at(unet, CutPoint(1), every=every))
            for every in (0, 1)
        )
        take(plain, unet, seed)
        guess = flat_grad(unet)
        take(exact, unet, seed)
        wanted = flat_grad(unet)
        step = take(audited, unet, seed)
        assert step.exact
        torch.testing.assert_close(flat_grad(unet), wanted, rtol=0.0, atol=1e-6)
        assert step.cosine == pytest.approx(float(guess @ wanted), abs=1e-5)


def test_shares_follow_the_energy_at_any_resolution() -> None:
    left, right = torch.zeros(1, 16, 8), torch.zeros(1, 16, 8)
    left[:, :, :2], right[:, :, 6:] = 1.0, 4.0
    shares = RegionShares([left, None, right])
    tokens, maps = torch.zeros(1, 32, 5), torch.zeros(1, 3, 16, 8)  # 32 tokens of 16 x 8 places are 8 x 4
    assert shares.at(0, tokens).shape == (1, 32, 1)
    assert shares.at(0, maps).shape == (1, 1, 16, 8)
    total = shares.at(0, maps) + shares.at(2, maps)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert bool((shares.at(0, maps)[..., 0] > 0.7).all())
    assert bool((shares.at(2, tokens).view(8, 4)[:, 3] > 0.9).all())
    assert float(shares.at(1, tokens)) == 0.0, "of an absent region"
    assert float(RegionShares([None, right]).at(1, maps)) == 1.0, "of the only one"


@pytest.mark.parametrize("targets", ["attention+conv", "all"])
def test_only_projections_of_attention_may_be_trained_near_the_output(targets: str) -> None:
    unet = small_unet(targets)
    with pytest.raises(ValueError, match=r"near the output of UNet2DConditionModel aren't in attention's to_q"):
        SplitEstimator(unet, trained(unet))


@pytest.mark.parametrize("place", [CutPoint(1, 1), None])
def test_overlapping_regions_are_refused(place: CutPoint | None) -> None:
    unet = small_unet()
    split = SplitEstimator(unet, trained(unet), every=0, place=place)  # None: still in its trial
    fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=split)

    def nested(seed: int) -> None:
        found, output = losses(unet, seed)
        unet.zero_grad()
        fair([found[0], found[1], output.prediction_b[..., 3:5, 4:6].square().mean()], output=output)

    for seed in range(7):
        nested(seed)
    with pytest.raises(
        EstimatorError, match=r"regions that share 100 % of the smaller one's area .*, more than 50 %; mode tail can"
    ):
        nested(7)


def test_it_needs_the_output_and_the_last_call() -> None:
    unet = small_unet()
    fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=split_at(unet, CutPoint(1, 1)))
    with pytest.raises(ValueError, match=r"mode split needs the network.s output: call fair"):
        fair(losses(unet)[0])
    found, output = losses(unet)
    losses(unet, 1)
    with pytest.raises(ValueError, match="the last call of the U-Net"):
        fair(found, output=output)


def test_layers_with_recorded_outputs_are_not_recomputed() -> None:
    unet = small_unet()
    unet.enable_gradient_checkpointing()
    split_at(unet, CutPoint(1, 1))
    flags = [attention.gradient_checkpointing for attention in unet.up_blocks[1].attentions]
    assert flags == [True, False]


def test_the_trial_chooses_among_supported_cuts() -> None:
    unet = small_unet()
    fair = fair_backward(unet, "split")
    assert take(fair, unet, 0).exact
    assert isinstance(fair.estimator, SplitEstimator)
    assert fair.estimator.place is not None
