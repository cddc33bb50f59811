"""A fair step in accelerate, with gradient accumulation and fp16: `accelerate launch examples/accelerate_loop.py`."""

import torch
from accelerate import Accelerator
from tiny import Denoiser, Pictures, three_losses
from torch import nn

from fairhuman.fairness import FairBackward, FairStep, MinimumPotentialDelay

ACCUMULATE = 2


def train(model: nn.Module, epochs: int) -> list[FairStep]:
    """Train, and return what each optimiser step did."""
    accelerator = Accelerator(mixed_precision="fp16", gradient_accumulation_steps=ACCUMULATE)
    if accelerator.device.type == "cpu":  # accelerate leaves fp16 out there, and an example should run anywhere
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loader = torch.utils.data.DataLoader(Pictures(32), batch_size=4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    fair = FairBackward(model.parameters(), MinimumPotentialDelay(), scaler=accelerator.scaler)
    steps = []
    for _ in range(epochs):
        for batch in loader:
            with accelerator.accumulate(model):
                losses = [None if loss is None else loss / ACCUMULATE for loss in three_losses(model, batch)]
                step = fair(losses, sync=accelerator.sync_gradients)  # instead of accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if step is not None:  # while micro-batches are gathered there is no step
                steps.append(step)
    return steps


if __name__ == "__main__":
    for number, step in enumerate(train(Denoiser(), 3)):
        print(f"step {number}: weights of picture, face, hands", *(f"{weight:.3f}" for weight in step.weights))
