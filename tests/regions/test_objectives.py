"""Objectives against an independent statement of their formulas."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from fairhuman.regions.objectives import coverage, denominators, masked_losses, objective_masks
from fairhuman.regions.settings import Normalize, RegionSettings


def divided(masks: Tensor, channels: int, normalize: Normalize) -> Tensor:
    """The denominators [K] of a step of whole views."""
    return denominators(masks.sum(dim=(0, 2, 3)), masks[:, 0].sum(), channels, normalize)


def by_hand(
    residual: np.ndarray, weights: np.ndarray, masks: np.ndarray, normalize: str, scale: list[float]
) -> list[float | None]:
    """The formulas of the module, in loops."""
    batch, channels, height, width = residual.shape
    losses: list[float | None] = []
    for k in range(masks.shape[1]):
        total = area = 0.0
        for b in range(batch):
            for y in range(height):
                for x in range(width):
                    area += masks[b, k, y, x]
                    for c in range(channels):
                        total += weights[b] * masks[b, k, y, x] * residual[b, c, y, x] ** 2
        divisor = channels * area if normalize == "area" else batch * channels * height * width
        losses.append(scale[k] * total / divisor if area > 0 else None)
    return losses


@pytest.fixture
def case() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(4, 3, 6, 5, generator=generator)
    masks = torch.rand(4, 3, 12, 10, generator=generator) * (torch.rand(4, 3, 12, 10, generator=generator) < 0.2)
    masks[2] = 0.0
    masks[:, 1] = 0.0
    return residual, torch.rand(4, generator=generator), objective_masks(masks, 2)


@pytest.mark.parametrize("normalize", ["area", "image"])
def test_losses_equal_the_formula(case: tuple[Tensor, Tensor, Tensor], normalize: str) -> None:
    residual, weights, masks = case
    settings = RegionSettings(names=("face", "hand", "feet"), normalize=normalize, scale={"face": 25.0})
    divisors = divided(masks, residual.shape[1], settings.normalize)
    losses = masked_losses(residual, weights, masks, divisors, torch.tensor(settings.factors()))
    expected = by_hand(residual.numpy(), weights.numpy(), masks.numpy(), normalize, [1.0, 25.0, 1.0, 1.0])
    assert losses[2] is None
    assert expected[2] is None
    for ours, theirs in zip(losses, expected, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.item() == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("normalize", ["area", "image"])
def test_how_a_step_is_divided_changes_nothing(case: tuple[Tensor, Tensor, Tensor], normalize: str) -> None:
    residual, weights, masks = case
    divisors = divided(masks, 3, normalize)  # type: ignore[arg-type]
    factors = torch.ones(4)
    whole = masked_losses(residual, weights, masks, divisors, factors)
    for parts in ([0, 1, 4], [0, 2, 3, 4]):
        totals = [0.0] * 4
        for first, last in pairwise(parts):
            part = masked_losses(residual[first:last], weights[first:last], masks[first:last], divisors, factors)
            totals = [total + (0.0 if loss is None else loss.item()) for total, loss in zip(totals, part, strict=True)]
        assert totals == pytest.approx([0.0 if loss is None else loss.item() for loss in whole], rel=1e-5)


def test_region_losses_are_means_over_the_region_by_default() -> None:
    """The reference averages over the whole latent and hard-codes a factor 5 inside the square."""
    residual = torch.full((1, 4, 8, 8), 2.0)
    masks = torch.zeros(1, 1, 8, 8)
    masks[0, 0, :2, :2] = 1.0
    full = objective_masks(masks, 1)
    own = masked_losses(residual, torch.ones(1), full, divided(full, 4, "area"), torch.ones(2))
    assert [loss.item() for loss in own if loss is not None] == pytest.approx([4.0, 4.0])
    scale = RegionSettings(names=("face",), normalize="image", scale={"face": 25.0}).factors()
    reference = masked_losses(residual, torch.ones(1), full, divided(full, 4, "image"), torch.tensor(scale))
    assert [loss.item() for loss in reference if loss is not None] == pytest.approx([4.0, 25.0 * 4.0 * 4 / 64])


def test_an_absent_objective_has_no_loss_rather_than_zero() -> None:
    masks = objective_masks(torch.zeros(2, 1, 4, 4), 2)
    divisors = divided(masks, 4, "area")
    losses = masked_losses(torch.ones(2, 4, 2, 2), torch.ones(2), masks, divisors, torch.ones(2))
    assert losses[1] is None
    assert losses[0] is not None
    assert losses[0].item() == 1.0


def test_the_loss_s_gradient_stays_inside_the_mask() -> None:
    masks = torch.zeros(1, 1, 8, 8)
    masks[0, 0, 2:4, 5:7] = 1.0
    residual = torch.ones(1, 4, 8, 8, requires_grad=True)
    full = objective_masks(masks, 1)
    losses = masked_losses(residual, torch.ones(1), full, divided(full, 4, "area"), torch.ones(2))
    assert losses[1] is not None
    (gradient,) = torch.autograd.grad(losses[1], residual)
    assert torch.equal(gradient[0, 0] != 0, masks[0, 0] > 0)


def test_an_absent_objective_with_a_factor_leaves_the_others_gradients() -> None:
    residual = torch.ones(1, 4, 2, 2, requires_grad=True)
    masks = objective_masks(torch.zeros(1, 1, 4, 4), 2)
    losses = masked_losses(residual, torch.ones(1), masks, divided(masks, 4, "area"), torch.tensor([1.0, 25.0]))
    assert losses[0] is not None
    (gradient,) = torch.autograd.grad(losses[0], residual)
    assert gradient.flatten().tolist() == [2 / 16] * 16


@pytest.mark.parametrize("normalize", ["area", "image"])
def test_a_hand_counts_as_much_in_a_close_up(normalize: Normalize) -> None:
    """Of four samples with a hand of 16 of 256 cells some are close-ups, where it has 64 cells of a quarter each."""
    seen = []
    for close_ups in range(5):
        masks = torch.zeros(4, 2, 16, 16)
        masks[close_ups:, 0] = 1.0
        masks[close_ups:, 1, :4, :4] = 1.0
        masks[:close_ups, 1, :8, :8] = 0.25
        divisors = denominators(masks.sum(dim=(0, 2, 3)), torch.tensor(4 * 256.0), 4, normalize)
        losses = masked_losses(torch.ones(4, 4, 16, 16), torch.ones(4), masks, divisors, torch.ones(2))
        seen.append([loss and loss.item() for loss in losses])
    hand = 1.0 if normalize == "area" else 16 / 256
    assert seen == [[1.0, hand]] * 4 + [[None, hand]]


def test_coverage_counts_samples() -> None:
    present = torch.tensor([[True, False], [True, False], [False, False], [True, True]])
    known = torch.tensor([[True, False], [True, True], [True, True], [True, True]])
    assert coverage(present, known, ["face", "hand"]) == {
        "coverage/face": 0.75,
        "known/face": 1.0,
        "coverage/hand": 0.25,
        "known/hand": 0.75,
    }
