"""What the examples train: a tiny denoiser, on pictures with a face and hands where the masks say so."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

Batch = dict[str, Tensor]


class Denoiser(nn.Module):
    """Predicts the noise in pictures [B, 3, H, W]; in your script this is the U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, noisy_bchw: Tensor) -> Tensor:
        """Return the noise that it sees."""
        predicted: Tensor = self.layers(noisy_bchw)
        return predicted


class Pictures(torch.utils.data.Dataset[Batch]):
    """Smooth pictures of 16 x 16 pixels, with noise and masks; every other one has hands."""

    def __init__(self, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(count, 3, 4, 4, generator=generator)
        self.clean = nn.functional.interpolate(coarse, 16, mode="bilinear")
        self.noise = torch.randn(count, 3, 16, 16, generator=generator)
        self.face, self.hand = torch.zeros(2, count, 16, 16).unbind()
        self.face[:, 2:7, 4:11] = 1.0
        self.hand[::2, 11:14, 2:5] = 1.0

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int) -> Batch:
        noisy = self.clean[index] + self.noise[index]
        return {"noisy": noisy, "noise": self.noise[index], "face": self.face[index], "hand": self.hand[index]}


def epochs(count: int, batch_size: int = 4) -> Iterator[Batch]:
    """Return the batches of `count` epochs."""
    for _ in range(count):
        yield from torch.utils.data.DataLoader(Pictures(32), batch_size)


def masked(errors_bhw: Tensor, mask_bhw: Tensor) -> Tensor | None:
    """Return the mean error inside a mask; None, which says that the objective is absent, where the mask is empty."""
    return (errors_bhw * mask_bhw).sum() / mask_bhw.sum() if bool(mask_bhw.any()) else None


def three_losses(model: nn.Module, batch: Batch) -> list[Tensor | None]:
    """Predict once, and return the losses of the whole picture, the faces and the hands."""
    errors = (model(batch["noisy"]).float() - batch["noise"]).square().mean(dim=1)
    return [errors.mean(), masked(errors, batch["face"]), masked(errors, batch["hand"])]
