"""Balancers of other papers, by torchjd: `strategy: torchjd:NAME`. Needs the extra `balancers`.

Registered as entry points of the group `fairhuman.strategies`, so nothing here is imported before a recipe names one.
"""

from importlib.util import find_spec

_MISSING = [name for name in ("torchjd", "qpsolvers", "quadprog", "cvxpy", "clarabel") if find_spec(name) is None]
if _MISSING:
    raise ImportError(f"{', '.join(_MISSING)} not installed: pip install 'fairhuman[balancers]'")

from fairhuman.balancers.conflict_free import ConFIG  # noqa: E402 - the packages that these need are checked first
from fairhuman.balancers.gramian import IMTLG, MGDA, AlignedMTL, CAGrad, DualProj, GradVac, PCGrad, UPGrad  # noqa: E402
from fairhuman.balancers.tchebycheff import STCH  # noqa: E402

__all__ = ["IMTLG", "MGDA", "STCH", "AlignedMTL", "CAGrad", "ConFIG", "DualProj", "GradVac", "PCGrad", "UPGrad"]
