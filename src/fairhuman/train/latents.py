"""Latents of pictures that are seen again: the VAE is frozen, so it need not be asked twice."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fairhuman.data.batch import Batch
from fairhuman.models.sdxl import latent_moments
from fairhuman.regions.transforms import Draw


class LatentCache:
    """Mean and standard deviation of each view (record, resize, crop, mirroring), in float16 in main memory.

    A view takes 4 bytes a latent value: 16 KB at 4 x 32 x 32, 256 KB at 4 x 128 x 128. The first use of a view
    is rounded as the later ones are, and each picture is encoded by itself, as its last bits depend on the others of a
    batch: so a resumed run, whose cache is empty, gives the same result.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, Draw], Tensor] = {}

    def __len__(self) -> int:
        """Number of views kept."""
        return len(self._kept)

    def moments(self, vae: AutoencoderKL, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [B, C, h, w] of the batch's latents, as `latent_moments`."""
        views = list(zip(batch.keys, batch.draws, strict=True))
        for number, view in enumerate(views):
            if view not in self._kept:
                moments = latent_moments(vae, batch.pictures_bchw[number : number + 1])
                self._kept[view] = torch.cat(moments).half().cpu()
        both = torch.stack([self._kept[view] for view in views]).to(batch.pictures_bchw.device).float()
        return both[:, 0], both[:, 1]
