"""A real diffusers U-Net with SDXL's blocks in small, with LoRA, and a batch with three losses for it."""

from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from torch import Tensor, nn

from fairhuman.fairness import (
    EmaEstimator,
    Estimator,
    ExactEstimator,
    FairBackward,
    FairStep,
    Length,
    MinimumPotentialDelay,
    Output,
    OutputEstimator,
    PairwiseEstimator,
    SplitEstimator,
    Strategy,
    TailEstimator,
)

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TARGETS = {"attention": ATTENTION, "attention+conv": (*ATTENTION, "conv1", "conv2"), "all": ()}


def small_unet(targets: str = "attention", seed: int = 0) -> UNet2DConditionModel:
    """LoRA with weights that aren't zero on `targets`, or everything trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16, 32),
            transformer_layers_per_block=(1, 1, 2),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=16,
            use_linear_projection=True,
        )
        if targets != "all":
            unet.requires_grad_(False)
            unet.add_adapter(LoraConfig(r=4, target_modules=list(TARGETS[targets]), init_lora_weights=False))
    unet.set_attn_processor(AttnProcessor())
    return unet.train()


def trained(unet: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def noise_of(seed: int) -> Tensor:
    """What the network is to predict."""
    return torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(seed))


def losses(
    unet: nn.Module, seed: int = 0, absent: bool = False, part: slice = slice(None)
) -> tuple[list[Tensor | None], Output]:
    """The whole latent and two regions of `part` of four samples [4, 4, 16, 16]; noise levels from the timesteps."""
    generator = torch.Generator().manual_seed(seed + 1000)
    noise = noise_of(seed)
    latents = torch.randn(noise.shape, generator=generator)
    steps = torch.randint(1000, (4,), generator=generator)
    text = torch.randn(4, 5, 16, generator=generator)
    prediction = unet(latents[part], steps[part], text[part]).sample
    errors = (prediction - noise[part]).square()
    found: list[Tensor | None] = [errors.mean(), errors[..., 2:6, 3:9].mean(), errors[..., 12:14, 12:].mean()]
    if absent:
        found[1] = None
    return found, Output(prediction, 6.0 - steps[part] / 80.0)


def true_gradients(unet: nn.Module, seed: int = 0, absent: bool = False) -> Tensor:
    """G^T [K, P], float64, by K ordinary backward passes; zeros for an absent objective."""
    rows = []
    for loss in losses(unet, seed, absent=absent)[0]:
        unet.zero_grad()
        if loss is not None:
            loss.backward(retain_graph=True)
        rows.append(flat_grad(unet))
    unet.zero_grad()
    return torch.stack(rows)


def flat_grad(unet: nn.Module) -> Tensor:
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained(unet)]
    return torch.cat([part.double().reshape(-1) for part in parts])


ESTIMATORS: dict[str, Callable[[nn.Module, int], Estimator]] = {
    "ema": lambda unet, every: EmaEstimator(trained(unet), every),
    "output": lambda unet, every: OutputEstimator(trained(unet), every, warm_up=1),
    "tail": lambda unet, every: TailEstimator(unet, trained(unet), every, trial=1),
    "split": lambda unet, every: SplitEstimator(unet, trained(unet), every, trial=1),
}


EXACT: dict[str, Callable[[nn.Module, int], Estimator]] = {"pairwise": lambda unet, _: PairwiseEstimator(trained(unet))}
KEPT: dict[str, Callable[[nn.Module, int], Estimator]] = {  # gradients in bfloat16
    "kept": lambda unet, _: ExactEstimator(trained(unet), dtype=torch.bfloat16),
    "kept pairs": lambda unet, _: PairwiseEstimator(trained(unet), torch.bfloat16),
    "kept output": lambda unet, every: OutputEstimator(
        trained(unet), every, ExactEstimator(trained(unet), dtype=torch.bfloat16), warm_up=1
    ),
}


def fair_backward(
    unet: nn.Module,
    mode: str,
    strategy: Strategy | None = None,
    length: Length = "radius",
    radius: float = 1.0,
    every: int = 4,
) -> FairBackward:
    """The first step is exact, and every fourth."""
    estimator = {**ESTIMATORS, **EXACT, **KEPT}[mode](unet, every)
    strategy = strategy or MinimumPotentialDelay()
    return FairBackward(trained(unet), strategy, length=length, radius=radius, estimator=estimator)


def take(fair: FairBackward, unet: nn.Module, seed: int = 0, absent: bool = False) -> FairStep:
    """One step; `.grad` has its direction and nothing else."""
    unet.zero_grad()
    found, output = losses(unet, seed, absent=absent)
    step = fair(found, output=output)
    assert step is not None
    return step
