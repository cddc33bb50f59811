"""The direction of a step on every base."""

import pytest
import torch
from torch import Tensor

from fairhuman.data.samples.batch import Batch
from fairhuman.fairness import FairBackward, MinimumPotentialDelay, OutputEstimator
from fairhuman.train.step import fair_step
from helpers.base_cases import Case, batch_of, make_case


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other / (one.norm() * other.norm()))


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_the_applied_direction_is_the_weighted_sum_of_the_gradients(case: Case, batch: Batch) -> None:
    """With the true Gram matrix, whose MPD weights solve (M w)_i = w_i^(-1/2), at the length of the constraint."""
    gradients = case.gradients(batch)
    step, _ = fair_step(case.objectives, FairBackward(case.parameters, MinimumPotentialDelay()), [batch])
    direction = case.direction()
    assert step.gram is not None
    assert error(step.gram.flatten(), (gradients @ gradients.T).flatten()) < 1e-6
    assert float(((step.gram @ step.weights) * step.weights.sqrt() - 1).abs().max()) < 1e-6
    assert error(direction, step.scale * (step.weights @ gradients)) < 1e-6
    assert float(direction.norm()) == pytest.approx(1.0, rel=1e-6)


def test_micro_batches_and_their_order_change_nothing(case: Case, batch: Batch) -> None:
    directions = []
    for division in ([batch], [batch_of(0), batch_of(1, 2)], [batch_of(2, 0), batch_of(1)]):
        fair_step(case.objectives, FairBackward(case.parameters, MinimumPotentialDelay()), division)
        directions.append(case.direction())
    assert error(directions[1], directions[0]) < 2e-5
    assert error(directions[2], directions[0]) < 2e-5


def test_checkpointing_gives_the_same_direction(case: Case, batch: Batch) -> None:
    checkpointed = make_case(case.name, case.folder, gradient_checkpointing=True)
    assert checkpointed.base.network.is_gradient_checkpointing
    directions = []
    for each, batched in ((case, False), (checkpointed, False), (checkpointed, True)):
        fair_step(each.objectives, FairBackward(each.parameters, MinimumPotentialDelay(), batched=batched), [batch])
        directions.append(each.direction())
    assert error(directions[1], directions[0]) < 1e-5
    assert error(directions[2], directions[0]) < 1e-5


def test_half_precision_keeps_the_direction(case: Case, batch: Batch) -> None:
    """As `precision: bf16` has it: frozen weights in bfloat16 under autocast, LoRA in float32."""
    half = make_case(case.name, case.folder, precision=torch.bfloat16)
    assert half.base.dtype == torch.bfloat16
    directions = []
    for each in (case, half):
        fair_step(each.objectives, FairBackward(each.parameters, MinimumPotentialDelay()), [batch])
        directions.append(each.direction())
    assert all(parameter.dtype == torch.float32 for parameter in half.parameters)
    assert cosine(*directions) > 0.99


def test_the_output_s_estimate_is_near_the_exact_direction(case: Case, batch: Batch) -> None:
    """After 3 exact steps of other batches."""
    estimator = OutputEstimator(case.parameters, every=10**9, warm_up=3)
    fair = FairBackward(case.parameters, MinimumPotentialDelay(), estimator=estimator)
    for each in (batch, batch_of(0, 1), batch_of(1, 2)):
        step, _ = fair_step(case.objectives, fair, [each])
        assert step.gram is not None
        case.direction()
    fair_step(case.objectives, fair, [batch_of(2, 0)])
    estimated = case.direction()
    fair_step(case.objectives, FairBackward(case.parameters, MinimumPotentialDelay()), [batch_of(2, 0)])
    assert cosine(estimated, case.direction()) > 0.95
