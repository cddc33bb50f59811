"""A small real network with everything that troubles a gradient collector, and the truth about its gradients."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairhuman.fairness import (
    AlphaFair,
    DynamicWeightAverage,
    LinearScalarization,
    MinimumPotentialDelay,
    NashMTL,
    RandomLossWeighting,
    ScaleInvariant,
    Strategy,
    UncertaintyWeighting,
)

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "ls": LinearScalarization,
    "dwa": lambda: DynamicWeightAverage(window=1),
    "uw": lambda: UncertaintyWeighting(3),
    "rlw": lambda: RandomLossWeighting(1),
    "si": ScaleInvariant,
    "nash": NashMTL,
    "mpd": MinimumPotentialDelay,
    "alpha": lambda: AlphaFair(4.0),
}
BALANCING = ("nash", "mpd", "alpha")


class TinyUNet(nn.Module):
    """Two levels, a skip connection, a tied, a frozen and an unused parameter."""

    def __init__(self, seed: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.into = nn.Conv2d(2, 8, 3, padding=1)
            self.down = nn.Conv2d(8, 12, 3, stride=2, padding=1)
            self.middle = nn.Conv2d(12, 12, 1)
            self.again = nn.Conv2d(12, 12, 1)
            self.norm = nn.GroupNorm(3, 12)
            self.up = nn.ConvTranspose2d(12, 8, 2, stride=2)
            self.out = nn.Conv2d(16, 2, 3, padding=1)
            self.unused = nn.Parameter(torch.randn(5))
        self.again.weight = self.middle.weight  # tied
        self.into.bias.requires_grad_(False)  # frozen
        self.dropout = nn.Dropout(dropout)
        self.checkpointing = False

    def _inner(self, x: Tensor) -> Tensor:
        return self.again(self.dropout(self.norm(self.middle(x)).tanh())).tanh()

    def forward(self, x: Tensor) -> Tensor:
        skip = self.into(x).tanh()
        low = self.down(skip).tanh()
        low = checkpoint(self._inner, low, use_reentrant=False) if self.checkpointing else self._inner(low)
        return self.out(torch.cat([self.up(low), skip], dim=1))


def batch(size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs and targets [B, 2, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(2, size, 2, 8, 8, generator=generator)
    return inputs, targets


def three_losses(net: Callable[[Tensor], Tensor], data: tuple[Tensor, Tensor]) -> list[Tensor]:
    """The whole picture and two regions, of quite different size."""
    inputs, targets = data
    errors = (net(inputs) - targets).float().square()
    return [errors.mean(), 0.1 * errors[..., 2:4, 2:4].mean(), errors[..., 6:, :1].mean()]


def trained(net: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in net.parameters() if parameter.requires_grad]


def flat(tensors: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> np.ndarray:
    """One long float64 vector; zeros where there is no gradient."""
    parts = [p.detach() * 0.0 if t is None else t.detach() for t, p in zip(tensors, parameters, strict=True)]
    return torch.cat([part.double().reshape(-1) for part in parts]).numpy()


def flat_grad(parameters: Sequence[nn.Parameter]) -> np.ndarray:
    return flat([parameter.grad for parameter in parameters], parameters)


def true_gradients(losses: Callable[[], Sequence[Tensor]], parameters: Sequence[nn.Parameter]) -> np.ndarray:
    """G^T [K, P] by K separate forward and `backward()` passes, the most ordinary way there is; `.grad` is kept."""
    kept = [parameter.grad for parameter in parameters]
    rows = []
    for i in range(len(losses())):
        for parameter in parameters:
            parameter.grad = None
        losses()[i].backward()
        rows.append(flat_grad(parameters))
    for parameter, grad in zip(parameters, kept, strict=True):
        parameter.grad = grad
    return np.stack(rows)
