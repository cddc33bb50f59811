"""The share of each region in the error energy, at every position of a feature map."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

BLUR = 1.5  # standard deviation in pixels of the output: convolutions and attention carry gradients beyond an edge
FLOOR = 0.03  # of a region's mean energy, added everywhere: normalisation and attention carry gradients further


class RegionShares:
    """s_i(n) = E_i(n) / Σ_j E_j(n) at any resolution, from the regions' energies at the network's output.

    E_i is the given energy, blurred, plus 3 % of its mean everywhere. With one region s is 1.

    Args:
        energies: one [B, H, W] per region; None: absent.
    """

    def __init__(self, energies: Sequence[Tensor | None]) -> None:
        self._present = [i for i, energy in enumerate(energies) if energy is not None]
        self._sizes: dict[tuple[int, int], Tensor] = {}
        if len(self._present) > 1:
            stacked = torch.stack([energy for energy in energies if energy is not None])
            self._energy_rbhw = _blur(stacked) + FLOOR * stacked.mean(dim=(2, 3), keepdim=True)

    def at(self, region: int, tensor: Tensor) -> Tensor:
        """Return the share for tokens as [B, N, 1] or for a feature map as [B, 1, h, w], in the tensor's dtype."""
        if len(self._present) < 2 or region not in self._present:
            return tensor.new_full((), float(region in self._present))
        height, width = self._energy_rbhw.shape[2:]
        if tensor.dim() == 4:
            size = (tensor.shape[2], tensor.shape[3])
        else:
            scale = math.sqrt(height * width / tensor.shape[1])
            size = (round(height / scale), round(width / scale))
        if size not in self._sizes:
            pooled = functional.adaptive_avg_pool2d(self._energy_rbhw, size)
            self._sizes[size] = pooled / pooled.sum(dim=0, keepdim=True).clamp_min(torch.finfo(pooled.dtype).tiny)
        share_bhw = self._sizes[size][self._present.index(region)].to(tensor.dtype)
        return share_bhw[:, None] if tensor.dim() == 4 else share_bhw.flatten(1)[..., None]


def _blur(maps_rbhw: Tensor) -> Tensor:
    """Gaussian blur of maps, padded with zeros."""
    reach = math.ceil(3 * BLUR)
    kernel = torch.arange(-reach, reach + 1, dtype=maps_rbhw.dtype, device=maps_rbhw.device)
    kernel = (-kernel.square() / (2 * BLUR**2)).exp()
    kernel = kernel / kernel.sum()
    flat = maps_rbhw.flatten(0, 1)[:, None]
    flat = functional.conv2d(flat, kernel.view(1, 1, 1, -1), padding=(0, reach))
    return functional.conv2d(flat, kernel.view(1, 1, -1, 1), padding=(reach, 0)).view_as(maps_rbhw)
