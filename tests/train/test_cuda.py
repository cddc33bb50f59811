"""On a CUDA device: directions as on a CPU, whole runs, and networks that rest."""

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch.utils.checkpoint import checkpoint

from fairhuman.models.frozen_linear import FrozenLinear
from fairhuman.models.sdxl import load_pipeline
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from helpers.prepared_steps import prepared
from helpers.runs import metrics_without_times

MakeRecipe = Callable[..., TrainRecipe]
pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
DEVICE = torch.device("cuda")


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("mode", ["exact", "output", "tail"])
def test_a_direction_is_that_of_a_cpu(make_recipe: MakeRecipe, mode: str, checkpointing: bool) -> None:
    """Cosine of both, in float32; a GPU multiplies convolutions with fewer bits."""
    recipe = make_recipe(
        batch_size=4, resolution=64, fairness={"mode": mode}, gradient_checkpointing=checkpointing, precision="fp32"
    )
    found = []
    for device in (torch.device("cpu"), DEVICE):
        model, take_step = prepared(recipe, device)
        step = take_step()
        found.append(torch.cat([p.grad.flatten().cpu() for p in model.trainable_parameters() if p.grad is not None]))
        assert step.gram is not None
        assert torch.isfinite(step.gram).all()
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.999


@pytest.mark.parametrize("kind", ["int8", "fp8", "nf4"])
def test_a_quantised_layer_is_that_of_a_cpu(kind: str) -> None:
    layer = torch.nn.Linear(64, 48)
    x = torch.randn(5, 64)
    found = []
    for device in (torch.device("cpu"), DEVICE):
        quantized = FrozenLinear(layer.to(device), kind)
        given = x.clone().to(device).requires_grad_()
        out = quantized(given)
        out.square().sum().backward()
        assert given.grad is not None
        found.append((out.detach().cpu(), given.grad.cpu()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


def test_offloaded_layers_are_ordinary_ones() -> None:
    """In a network whose layers follow in changing order, with buffers that grow."""
    torch.manual_seed(3)
    sizes = [64, 48, 256, 96, 64]
    plain = [torch.nn.Linear(a, b).requires_grad_(False) for a, b in pairwise(sizes)]
    away = [FrozenLinear(copy.deepcopy(layer), "none", offloaded=True).to(DEVICE) for layer in plain]
    for layer in plain:
        layer.to(DEVICE)
    for _ in range(20):
        x = torch.randn(512, 64, device=DEVICE, requires_grad=True)
        for layers in (plain, away):
            y = x
            for layer in layers:
                y = checkpoint(layer, y, use_reentrant=False)
            grad = torch.autograd.grad(y.square().mean(), x)[0]
            if layers is plain:
                expected = y, grad
        torch.testing.assert_close((y, grad), expected)
    assert {one.weight.device.type for one in away} == {"cpu"}


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "bf16", "base": {"quantize": "int8"}},
        {"precision": "bf16", "base": {"offload": True}},
    ],
    ids=str,
)
def test_a_run_ends_with_a_lora_that_diffusers_loads(make_recipe: MakeRecipe, settings: dict[str, object]) -> None:
    settings = {"precision": "bf16", **settings}
    recipe = make_recipe(view={"crop": "center"}, cache={"latents": True, "text": True}, **settings)
    run = train(recipe)
    assert run.finished
    assert run.process.device.type == DEVICE.type
    assert all(line["loss/global"] > 0.0 for line in metrics_without_times(recipe.out))
    encoders = run.model.pipeline.text_encoder, run.model.pipeline.text_encoder_2
    assert {p.device.type for part in encoders for p in part.parameters()} == {"cpu"}, "cached, so they rest"
    places = [next(part.parameters()).device.type for part in (run.model.pipeline.vae, run.model.pipeline.unet)]
    assert places == ["cpu", DEVICE.type]
    pipeline: StableDiffusionXLPipeline = load_pipeline("small")
    pipeline.load_lora_weights(recipe.product)
    assert pipeline.get_active_adapters()


@pytest.mark.slow
def test_a_compiled_run(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(compile=True, precision="bf16")
    assert train(recipe).finished
    assert all(line["loss/global"] > 0.0 for line in metrics_without_times(recipe.out))
