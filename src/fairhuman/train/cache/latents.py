"""Cache of latents: the VAE is frozen, so a repeated view need not be encoded again."""

import torch
from torch import Tensor

from fairhuman.bases.base import Base
from fairhuman.data.samples.batch import Batch
from fairhuman.data.samples.encodings import Encodings
from fairhuman.models.resting import Resting


class LatentCache:
    """Mean and standard deviation of the latent of each view (picture, resize, crop, flip), in float16.

    A view takes 4 bytes per latent value: 16 KB at 4 x 32 x 32, 256 KB at 4 x 128 x 128. The first use of a view is
    rounded like later ones, and each picture is encoded alone, as its last bits depend on the rest of a batch. So
    results don't depend on the cache's contents.

    Args:
        kept: the tensors on disk.
        base: of the pipeline, whose VAE is in main memory.
        device: where the VAE works.

    Attributes:
        vae: the VAE, which rests until a view isn't cached, and again after a batch whose views all were.
    """

    def __init__(self, kept: Encodings, base: Base, device: torch.device) -> None:
        self.kept = kept
        self._base = base
        self.vae = Resting([base.vae], device, resting=True)
        self._encoded = False

    def moments(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation [B, C, h, w] of the batch's latents, as `Base.moments`.

        The samples must come from a data set that reads from this cache, so that they have views.
        """
        self._encoded = False
        pictures = iter(batch.pictures_bchw)
        found = []
        for view, moments in zip(batch.views, batch.moments, strict=True):
            if moments is None:
                assert view is not None
                moments = self.moments_of(view.key, view.origin, next(pictures))
            found.append(moments)
        if not self._encoded:
            self.vae.rest()
        both = torch.stack(found).to(batch.pictures_bchw.device).float()
        return both[:, 0], both[:, 1]

    def moments_of(self, key: str, origin: str, picture_chw: Tensor) -> Tensor:
        """Return the moments [2, C, h, w] of a view's picture, float16, and cache them."""
        moments_2chw = self.kept.get(key)  # another sample may have added this view since this one was loaded
        if moments_2chw is None:
            self.vae.wake()
            self._encoded = True
            moments_2chw = torch.cat(self._base.moments(picture_chw[None])).half().cpu()
            self.kept.add(key, moments_2chw, origin)
        return moments_2chw
