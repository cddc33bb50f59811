"""Quantised linear layers: their values, their product and gradient, what they keep, and where they are refused."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fairhuman.data.samples.batch import Batch
from fairhuman.errors import FairHumanError
from fairhuman.fairness import FairBackward, MinimumPotentialDelay
from fairhuman.generate.lora import load_lora
from fairhuman.models.architecture import build_small
from fairhuman.models.frozen_linear import NF4, FrozenLinear, freeze_linear_
from fairhuman.models.lora import LoraModel
from fairhuman.models.merge import MergeJob
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import BaseSettings, LoraSettings
from fairhuman.regions.settings import RegionSettings
from fairhuman.train.live_bytes import LiveBytes
from fairhuman.train.settings import NoiseSettings
from fairhuman.train.step import Objectives, fair_step

KINDS = ("int8", "fp8", "nf4")
HALF_A_STEP = {"int8": 0.5 / 127, "fp8": 2.0**-4, "nf4": max(b - a for a, b in pairwise(NF4)) / 2}
ROUNDED = {torch.float32: 1e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-9}
BYTES = {"int8": 1.0, "fp8": 1.0, "nf4": 0.5}


def layer_of(dtype: torch.dtype = torch.float32) -> nn.Linear:
    generator = torch.Generator().manual_seed(1)
    layer = nn.Linear(96, 160).to(dtype).requires_grad_(False)
    layer.weight.copy_(torch.randn(160, 96, generator=generator))
    layer.weight[3] = 0.0  # a row without weights
    return layer


@pytest.mark.parametrize("dtype", ROUNDED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_is_the_nearest_value(kind: str, dtype: torch.dtype) -> None:
    """Within half a step of its scale, by the largest weight of its row or of its 64."""
    layer = layer_of(dtype)
    found = FrozenLinear(layer, kind)
    assert found.weight.dtype == torch.int8
    assert found.weight.numel() == BYTES[kind] * layer.weight.numel()
    rows, values = (
        w.float().view((-1, 64) if kind == "nf4" else (160, 96)) for w in (layer.weight, found.dequantized(dtype))
    )
    largest = rows.abs().amax(dim=1, keepdim=True)
    bound = rows.abs().clamp_min(largest * 2**-9) if kind == "fp8" else largest  # float8 has steps of its own
    assert bool(((rows - values).abs() <= bound * HALF_A_STEP[kind] + largest * ROUNDED[dtype]).all())
    if kind == "nf4":
        shares = rows / largest.clamp_min(1e-30)
        nearest = torch.tensor(NF4)[(shares[..., None] - torch.tensor(NF4)).abs().argmin(dim=-1)]
        assert bool(((values - nearest * largest).abs() <= largest * 2 * ROUNDED[dtype]).all())


@pytest.mark.parametrize("kind", KINDS)
def test_product_and_gradient_are_those_of_the_dequantised_weight(kind: str) -> None:
    found = FrozenLinear(layer_of(), kind)
    plain = nn.Linear(96, 160).requires_grad_(False)
    plain.weight.copy_(found.dequantized(torch.float32))
    plain.bias.copy_(found.bias)
    x = torch.randn(2, 5, 96, generator=torch.Generator().manual_seed(2), requires_grad=True)
    results = []
    for layer in (found, plain):
        y = layer(x)
        losses = torch.stack([y.square().sum(), y.sum(), y[0].cos().sum()])
        together = torch.autograd.grad(losses, x, torch.eye(3), is_grads_batched=True, retain_graph=True)[0]
        alone = torch.stack([torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses])
        assert torch.equal(together, alone)
        results += [y, alone]
    assert torch.equal(results[0], results[2])
    assert torch.equal(results[1], results[3])


def test_autocast_decides_on_the_type() -> None:
    layer = FrozenLinear(layer_of(torch.bfloat16), "int8")
    x = torch.randn(3, 96, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert torch.autograd.grad(y.sum(), x)[0].dtype == torch.float32


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_keeps_no_dequantised_weight(kind: str) -> None:
    layers = nn.Sequential(*(FrozenLinear(nn.Linear(96, 96).requires_grad_(False), kind) for _ in range(8)))
    x = torch.randn(2, 96, requires_grad=True)
    with LiveBytes([x, *layers.parameters(), *layers.buffers()]) as live:
        y = layers(x).sum()
        assert live.live <= 8 * 2 * 96 * 4 + 4
        torch.autograd.grad(y, x)
    assert live.peak < 3 * 96 * 96 * 4, "one weight with what makes it, not eight"


def test_linear_layers_of_blocks_are_quantised_and_nothing_else() -> None:
    pipeline, plain = build_small(), build_small()
    freeze_linear_(pipeline, BaseSettings(quantize="int8"))
    found = {name for name, layer in pipeline.unet.named_modules() if isinstance(layer, FrozenLinear)}
    assert {name.split(".transformer_blocks.0.")[1] for name in found} == {
        *(f"attn{n}.{end}" for n in (1, 2) for end in ("to_q", "to_k", "to_v", "to_out.0")),
        *("ff.net.0.proj", "ff.net.2"),
    }
    texts = {name for name, layer in pipeline.text_encoder_2.named_modules() if isinstance(layer, FrozenLinear)}
    assert len(texts) == 2 * 6
    assert "text_projection" not in texts
    assert not any(isinstance(layer, FrozenLinear) for layer in pipeline.vae.modules())
    for name, weight in plain.unet.state_dict().items():
        if name.rpartition(".")[0] not in found:
            assert torch.equal(weight, pipeline.unet.state_dict()[name]), name


def test_the_direction_on_the_trained_base(make_batch: Callable[[int], tuple[Batch, Tensor, Tensor]]) -> None:
    """Cosine of MPD's direction to that on whole weights: the small SDXL that ships, LoRA of rank 16."""
    batch = make_batch(4)[0]
    batch.masks_brhw[:, 0, 8:32, 8:32] = batch.masks_brhw[:, 1, 40:56, 20:44] = 1.0
    directions = {}
    for kind in ("none", *KINDS):
        model = LoraModel(load_pipeline("small", base=BaseSettings(quantize=kind)), LoraSettings(rank=16), 0)
        generator = torch.Generator().manual_seed(9)
        with torch.no_grad():
            for parameter in model.trainable_parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
        fair = FairBackward(model.trainable_parameters(), MinimumPotentialDelay())
        fair_step(Objectives(model, RegionSettings(), NoiseSettings(), 0), fair, [batch])
        directions[kind] = torch.cat([p.grad.flatten() for p in model.trainable_parameters()]).double()
    whole = directions["none"]
    cosines = {kind: float(nn.functional.cosine_similarity(directions[kind], whole, dim=0)) for kind in KINDS}
    assert cosines["int8"] > 0.999
    assert cosines["fp8"] > 0.997
    assert cosines["nf4"] > 0.98


def test_nothing_is_fused_into_quantised_weights(tmp_path: Path) -> None:
    LoraModel(build_small(), LoraSettings(rank=2), 0).save(tmp_path)
    pipeline = load_pipeline("small", base=BaseSettings(quantize="nf4"))
    with pytest.raises(FairHumanError, match="can't be fused into a quantised network"):
        load_lora(pipeline, tmp_path, fuse=True)
    load_lora(pipeline, tmp_path)
    assert pipeline.get_list_adapters()
    job = MergeJob("small", tmp_path, tmp_path / "merged", base=BaseSettings(quantize="int8"))
    with pytest.raises(FairHumanError, match=r"base\.quantize: a LoRA is merged into whole weights"):
        job.check()
