"""Latents of pictures that are seen again: the VAE is frozen, so it need not be asked twice."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from fairhuman.data.samples.batch import Batch
from fairhuman.data.samples.encodings import Encodings
from fairhuman.models.sdxl import latent_moments


class LatentCache:
    """Mean and standard deviation of each view (picture, resize, crop, mirroring), in float16.

    A view takes 4 bytes a latent value: 16 KB at 4 x 32 x 32, 256 KB at 4 x 128 x 128. The first use of a view
    is rounded as the later ones are, and each picture is encoded by itself, as its last bits depend on the others of a
    batch: so results don't depend on what is kept already.
    """

    def __init__(self, kept: Encodings, vae: AutoencoderKL) -> None:
        self.kept = kept
        self._vae = vae

    def moments(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [B, C, h, w] of the batch's latents, as `latent_moments`.

        The batch's samples have views: they are of a data set that reads from this cache.
        """
        pictures = iter(batch.pictures_bchw)
        found = []
        for view, moments in zip(batch.views, batch.moments, strict=True):
            if moments is None:
                assert view is not None
                moments = self.moments_of(view.key, view.origin, next(pictures))
            found.append(moments)
        both = torch.stack(found).to(batch.pictures_bchw.device).float()
        return both[:, 0], both[:, 1]

    def moments_of(self, key: str, origin: str, picture_chw: Tensor) -> Tensor:
        """Return the moments [2, C, h, w] of a view's picture, float16; they are kept from now on."""
        moments_2chw = self.kept.get(key)  # another sample may have had the same view since this one was loaded
        if moments_2chw is None:
            moments_2chw = torch.cat(latent_moments(self._vae, picture_chw[None])).half().cpu()
            self.kept.add(key, moments_2chw, origin)
        return moments_2chw
