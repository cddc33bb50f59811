"""`FairBackward` under the conditions of real training: accumulation, checkpointing, aliases, memory."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from torch import Tensor, nn

from fairhuman.fairness import FairBackward, LinearScalarization, MinimumPotentialDelay, solve
from fairhuman.utils.memory import peak_allocated_bytes
from helpers.tiny_net import (
    STRATEGIES,
    TinyUNet,
    batch,
    flat_grad,
    three_losses,
    trained,
    true_gradients,
)

both = pytest.mark.parametrize("batched", [False, True], ids=["sequential", "batched"])
every = pytest.mark.parametrize("name", STRATEGIES)

# --- gradient accumulation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", [False, True])
@both
@every
def test_micro_batches_equal_the_whole_batch(name: str, batched: bool, measure: bool) -> None:
    """Over three optimiser steps, with the state that strategies keep in between."""
    joined, split = TinyUNet(), TinyUNet()
    kinds = STRATEGIES[name](), STRATEGIES[name]()
    one = FairBackward(joined.parameters(), kinds[0])
    many = FairBackward(split.parameters(), kinds[1], batched=batched)
    optimizers = [
        torch.optim.SGD([*net.parameters(), *kind.parameters()], lr=0.1)
        for net, kind in zip((joined, split), kinds, strict=True)
    ]
    for seed in range(3):
        inputs, targets = batch(6, seed)
        expected = one(three_losses(joined, (inputs, targets)))
        step = None
        for i in range(3):
            part = slice(2 * i, 2 * i + 2)
            losses = [loss / 3.0 for loss in three_losses(split, (inputs[part], targets[part]))]
            assert step is None
            step = many(losses, sync=i == 2, measure=measure)
        assert expected is not None
        assert step is not None
        np.testing.assert_allclose(step.weights, expected.weights, rtol=1e-4)
        np.testing.assert_allclose(step.losses, expected.losses, rtol=1e-5)
        np.testing.assert_allclose(flat_grad(trained(split)), flat_grad(trained(joined)), atol=5e-6)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


@both
def test_an_objective_may_be_absent_from_some_micro_batches(batched: bool) -> None:
    net = TinyUNet()
    first, second = batch(seed=1), batch(seed=2)
    rows = true_gradients(lambda: three_losses(net, first), trained(net))
    more = true_gradients(lambda: three_losses(net, second), trained(net))
    more[1] = 0.0
    total = rows + more
    fair = FairBackward(net.parameters(), MinimumPotentialDelay(), batched=batched)
    assert fair(three_losses(net, first), sync=False) is None
    losses = three_losses(net, second)
    step = fair([losses[0], None, losses[2]])
    assert step is not None
    np.testing.assert_allclose(step.weights, solve((total @ total.T).tolist()), rtol=1e-4)
    direction = step.weights.numpy() @ total
    np.testing.assert_allclose(flat_grad(trained(net)), direction / np.linalg.norm(direction), atol=2e-6)


# --- gradient checkpointing --------------------------------------------------------------------------------------


@both
@every
def test_checkpointing_changes_nothing(name: str, batched: bool) -> None:
    net = TinyUNet()
    plain = FairBackward(net.parameters(), STRATEGIES[name]())(three_losses(net, batch()))
    expected = flat_grad(trained(net))
    net.zero_grad()
    net.checkpointing = True
    step = FairBackward(net.parameters(), STRATEGIES[name](), batched=batched)(three_losses(net, batch()))
    assert plain is not None
    assert step is not None
    np.testing.assert_allclose(step.weights, plain.weights, rtol=1e-4)
    np.testing.assert_allclose(flat_grad(trained(net)), expected, atol=2e-6)


def test_dropout_under_checkpointing_is_sequential_only() -> None:
    """A limit of PyTorch that the documentation of `batched` names; the error leaves nothing behind."""
    net = TinyUNet(dropout=0.3)
    net.checkpointing = True
    with pytest.raises(RuntimeError, match="random operations"):
        FairBackward(net.parameters(), MinimumPotentialDelay(), batched=True)(three_losses(net, batch()))
    assert FairBackward(net.parameters(), MinimumPotentialDelay())(three_losses(net, batch())) is not None


def small_unet() -> UNet2DConditionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(32, 64),
            layers_per_block=1,
            attention_head_dim=2,
            cross_attention_dim=16,
            use_linear_projection=True,
        )
        unet.requires_grad_(False)
        unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False))
    return unet.train()


def test_a_diffusers_unet_with_lora_and_checkpointing_in_one_batched_pass() -> None:
    """The same step as sequentially without checkpointing, and vmap has a rule for every operation."""
    unet = small_unet()
    unet.set_attn_processor(AttnProcessor())
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    text = torch.randn(2, 5, 16, generator=generator)
    steps = torch.tensor([10, 700])

    def losses() -> list[Tensor]:
        errors = (unet(latents, steps, text).sample - noise).square()
        return [errors.mean(), errors[..., :2, :2].mean(), errors[..., 4:, 5:].mean()]

    fair = FairBackward(unet.parameters(), MinimumPotentialDelay())
    plain = fair(losses())
    expected = flat_grad(fair.parameters)
    unet.zero_grad()
    unet.enable_gradient_checkpointing()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step = FairBackward(unet.parameters(), MinimumPotentialDelay(), batched=True)(losses())
    assert plain is not None
    assert step is not None
    np.testing.assert_allclose(step.gram, plain.gram, rtol=1e-3, atol=1e-5 * plain.gram.max())
    np.testing.assert_allclose(flat_grad(fair.parameters), expected, atol=1e-5)


# --- aliases -----------------------------------------------------------------------------------------------------


def _parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.randn(n)) for n in (5, 3, 2, 5)]


FIXED = torch.linspace(-1.0, 2.0, 5)
ALIASING: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "expanded scalar": lambda a, b, c, d: (a + d).sum() + b.sum() + c.sum(),
    "one tensor twice": lambda a, b, c, d: ((a + d) * FIXED).sum() + b.sum() * c.sum(),
    "whole and parts": lambda a, b, c, d: ((a + torch.cat([b, c]) + d) * FIXED).sum(),
    "parts, then the whole": lambda a, b, c, d: ((torch.cat([b, c]) + d) * FIXED).sum() + a.sum(),
    "a step function": lambda a, b, c, d: (a.round() * FIXED).sum() + d.square().sum() + b.sum() + c.sum(),
}


@both
@pytest.mark.parametrize("kind", ALIASING)
def test_gradients_that_share_memory(kind: str, batched: bool) -> None:
    torch.manual_seed(0)
    parameters = _parameters()

    def losses() -> list[Tensor]:
        value = ALIASING[kind](*parameters)
        return [value, 0.1 * (value - 3.0) ** 2 + parameters[3].square().sum(), 2.0 * parameters[1].sum()]

    rows = true_gradients(losses, parameters)
    fair = FairBackward(parameters, LinearScalarization([1.0, 0.5, 3.0]), length="clip", radius=1e9, batched=batched)
    for micro_batches in (1, 3):
        for parameter in parameters:
            parameter.grad = None
        for i in range(micro_batches):
            step = fair(losses(), sync=i + 1 == micro_batches, measure=True)
        assert step is not None
        np.testing.assert_allclose(step.gram, micro_batches**2 * rows @ rows.T, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            flat_grad(parameters), micro_batches * np.array([1.0, 0.5, 3.0]) @ rows, rtol=1e-5, atol=1e-5
        )
    storages = [p.grad.untyped_storage().data_ptr() for p in parameters if p.grad is not None]
    assert len(set(storages)) == len(storages)  # an optimiser may write each in place


# --- memory ------------------------------------------------------------------------------------------------------


def _wide() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    layers = [layer for _ in range(10) for layer in (nn.Linear(256, 256), nn.Tanh())]
    return nn.Sequential(*layers), torch.randn(1, 256)


@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize(("name", "factor"), [("mpd", 3.0), ("ls", 0.0)])
@both
def test_extra_memory_is_at_most_one_set_of_gradients_an_objective(
    name: str, factor: float, batched: bool, micro_batches: int
) -> None:
    """Peak beyond the plain step ≤ K × P and a tensor or two; the reference's flat buffers take 4 × P and more."""
    net, inputs = _wide()
    fair = FairBackward(net.parameters(), STRATEGIES[name](), batched=batched)

    def losses() -> list[Tensor]:
        return [part.square().mean() for part in net(inputs).split(80, dim=1)[:3]]

    def fair_step() -> None:
        for i in range(micro_batches):
            fair(losses(), sync=i + 1 == micro_batches)

    def plain_step() -> None:
        for _ in range(micro_batches):
            torch.stack(losses()).sum().backward()

    peaks = []
    for call in (plain_step, fair_step):
        for measured in (False, True):  # what is allocated once isn't counted
            net.zero_grad()
            peak = peak_allocated_bytes(call) if measured else call()
        peaks.append(peak)
    net.zero_grad()
    parameters = sum(p.numel() * p.element_size() for p in net.parameters())
    if micro_batches > 1:  # new gradients beside those that are kept: all K at once in a batched pass
        factor += factor - 1.0 if batched and name == "mpd" else 1.0 if name == "ls" else 0.0
    slack = 2 * 256 * 256 * 4
    assert (factor - 1.0) * parameters - slack <= peaks[1] - peaks[0] <= factor * parameters + slack
