"""The strategies by name: those of this package, then those that installed packages add."""

import difflib
from importlib.metadata import entry_points

from fairhuman.fairness.alpha_fair import AlphaFair
from fairhuman.fairness.dynamic_weight_average import DynamicWeightAverage
from fairhuman.fairness.linear_scalarization import LinearScalarization
from fairhuman.fairness.minimum_potential_delay import MinimumPotentialDelay
from fairhuman.fairness.nash_mtl import NashMTL
from fairhuman.fairness.random_loss_weighting import RandomLossWeighting
from fairhuman.fairness.scale_invariant import ScaleInvariant
from fairhuman.fairness.strategy import GradientBalancing, LossWeighting, Strategy
from fairhuman.fairness.uncertainty_weighting import UncertaintyWeighting

STRATEGIES: dict[str, type[Strategy]] = {
    "ls": LinearScalarization,
    "dwa": DynamicWeightAverage,
    "uw": UncertaintyWeighting,
    "rlw": RandomLossWeighting,
    "si": ScaleInvariant,
    "nash": NashMTL,
    "mpd": MinimumPotentialDelay,
    "alpha": AlphaFair,
}
GROUP = "fairhuman.strategies"


def strategy_named(name: str) -> type[Strategy]:
    """Return the class of a strategy: of `STRATEGIES`, else of an entry point of the group `fairhuman.strategies`.

    A package adds a strategy of its own by a subclass of `LossWeighting` or `GradientBalancing` and, in its
    pyproject.toml, `[project.entry-points."fairhuman.strategies"]` with `name = "module:Class"`. Its module is imported
    here, and only if it is named.

    Raises:
        ValueError: there is no such strategy, or several packages have one of this name.
        ImportError: the package that has it can't be loaded; names the package.
        TypeError: the package has something else under this name.
    """
    if name in STRATEGIES:
        return STRATEGIES[name]
    found = tuple(entry_points(group=GROUP, name=name))
    packages = " and ".join(f"{one.dist.name} {one.dist.version}" if one.dist else one.value for one in found)
    if not found:
        known = [*STRATEGIES, *(one.name for one in entry_points(group=GROUP))]
        near = difflib.get_close_matches(name, known, 1, 0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ValueError(f"there is no strategy {name!r}; {hint}")
    if len(found) > 1:
        raise ValueError(f"the strategy {name!r} is in several packages, {packages}: uninstall all but one")
    try:
        kind = found[0].load()
    except Exception as error:
        raise ImportError(
            f"the strategy {name!r} of {packages} can't be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, LossWeighting | GradientBalancing)):
        raise TypeError(
            f"the strategy {name!r} of {packages} must be a subclass of LossWeighting or GradientBalancing, "
            f"found {kind!r}"
        )
    return kind
