"""A plain PyTorch loop with a fair step: `python examples/plain_loop.py`."""

from collections.abc import Iterable

import torch
from tiny import Batch, Denoiser, epochs, masked
from torch import Tensor, nn

from fairhuman.fairness import FairBackward, MinimumPotentialDelay


def train(model: nn.Module, batches: Iterable[Batch]) -> list[list[float]]:
    """Train, and return the weights of the three objectives in each step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    weights = []

    def errors(batch: Batch) -> Tensor:
        return (model(batch["noisy"]) - batch["noise"]).square().mean(dim=1)

    # One prediction a loss is easy to read; other examples predict once, and take all losses from the prediction.
    def loss_global(batch: Batch) -> Tensor:
        return errors(batch).mean()

    def loss_face(batch: Batch) -> Tensor | None:
        return masked(errors(batch), batch["face"])

    def loss_hand(batch: Batch) -> Tensor | None:
        return masked(errors(batch), batch["hand"])

    fair = FairBackward(model.parameters(), MinimumPotentialDelay())
    for batch in batches:
        step = fair([loss_global(batch), loss_face(batch), loss_hand(batch)])  # instead of loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        weights.append(step.weights.tolist())
    return weights


if __name__ == "__main__":
    for number, step in enumerate(train(Denoiser(), epochs(3))):
        print(f"step {number}: weights of picture, face, hands", *(f"{weight:.3f}" for weight in step))
