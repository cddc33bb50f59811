"""A fair step in Lightning, by manual optimisation: `python examples/lightning_module.py`."""

from typing import Any

import lightning
import torch
from tiny import Batch, Denoiser, Pictures, three_losses

from fairhuman.fairness import FairBackward, MinimumPotentialDelay


class FairModule(lightning.LightningModule):
    """Trains a denoiser on three objectives."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False  # the fair step stands where Lightning would call loss.backward()
        self.model = Denoiser()
        self.fair = FairBackward(self.model.parameters(), MinimumPotentialDelay())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser."""
        return torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def training_step(self, batch: Batch) -> None:
        """Take one step."""
        optimizer = self.optimizers()
        step = self.fair(three_losses(self.model, batch))
        optimizer.step()
        optimizer.zero_grad()
        for name, weight in zip(("global", "face", "hand"), step.weights, strict=True):
            self.log(f"weight/{name}", float(weight), on_step=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the next weights depend on; MPD has no state, other strategies have."""
        checkpoint["fair"] = self.fair.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it."""
        self.fair.load_state_dict(checkpoint["fair"])


def train(module: lightning.LightningModule, epochs: int) -> lightning.Trainer:
    """Train on the tiny pictures."""
    trainer = lightning.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False, log_every_n_steps=1
    )
    trainer.fit(module, torch.utils.data.DataLoader(Pictures(32), batch_size=4))
    return trainer


if __name__ == "__main__":
    print(train(FairModule(), 3).callback_metrics)
