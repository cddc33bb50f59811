"""ConFIG, from the Gram matrix."""

import torch
from torch import Tensor

from fairhuman.balancers.gramian import ScaleFreeBalancer


class ConFIG(ScaleFreeBalancer):
    """Equal projections on all unit gradients, as long as the sum of the projections of all gradients.

    Liu, Chu, Thuerey, ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks, ICLR 2025, Eq. 2-3.
    With unit gradients N [P, K] it is d = (Σ g_iᵀu) u along x = (Nᵀ)⁺ 1. As (Nᵀ)⁺ = N (NᵀN)⁺, R = NᵀN with
    R_ij = M_ij / √(M_ii M_jj) gives x = N y, y = R⁺ 1, and so w_i = s y_i / ‖g_i‖ with s = Σ_j ‖g_j‖ (R y)_j / (yᵀR y).
    """

    def _weigh(self, gram_pp: Tensor, present: Tensor, objectives: int) -> Tensor:  # noqa: ARG002 - the signature of all
        norms = gram_pp.diagonal().sqrt()
        unit = gram_pp / torch.outer(norms, norms)
        y = torch.linalg.pinv(unit, hermitian=True).sum(dim=1)
        along = unit @ y
        scale = (norms @ along) / (y @ along).clamp_min(torch.finfo(y.dtype).tiny)
        weights_p: Tensor = scale * y / norms
        return weights_p
