"""Settings that have an effect only with others: a table, for `train/levels.py` and the settings reference."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fairhuman.errors import FairHumanError
from fairhuman.train.settings import GRADIENT_BALANCING, needs_gram, of_another_package
from fairhuman.utils.parse import as_typed


@dataclass(frozen=True)
class Condition:
    """What a setting needs to have an effect.

    Attributes:
        words: of the condition, after "with".
        deciders: the settings that it depends on.
        holds: whether it holds, from their values as in a recipe file.
    """

    words: str
    deciders: tuple[str, ...]
    holds: Callable[..., bool]

    def __str__(self) -> str:
        return self.words


def _is(decider: str, *values: Any) -> Condition:
    return Condition(f"{decider}={' or '.join(map(as_typed, values))}", (decider,), lambda value: value in values)


def _isnt(decider: str, value: Any) -> Condition:
    return Condition(f"{decider} other than {as_typed(value)}", (decider,), lambda found: found != value)


def _balances(strategy: Any) -> bool:
    try:
        return not isinstance(strategy, str) or needs_gram(strategy)
    except FairHumanError:
        return True  # what isn't a strategy is an error of its own


_BALANCES = Condition("a strategy that balances gradients", ("strategy",), _balances)
_REGIONS = Condition("at least one region in regions.names", ("regions.names",), lambda names: bool(names))
_SEVERAL = Condition(
    "at least one region in regions.names, or objectives.bands",
    ("regions.names", "objectives.bands"),
    lambda names, bands: bool(names) or bands is not None,
)
_DRAWN = Condition(
    "preview.count of at least 1, or preview.prompts",
    ("preview.count", "preview.prompts"),
    lambda count, prompts: count != 0 or bool(prompts),
)
_VALIDATES = _isnt("validation.every", 0)
_BUCKETS = _isnt("view.bucket_aspect", None)

# A setting or a section to what it needs; all conditions must hold, those of its section too.
EFFECTS: Mapping[str, tuple[Condition, ...]] = {
    "lora": (_is("kind", "lora"),),
    "lora.init": (_is("lora.start", None),),
    "full": (_is("kind", "full"),),
    "controlnet": (_is("kind", "controlnet"),),
    "t2i_adapter": (_is("kind", "t2i_adapter"),),
    "mole": (_is("kind", "mole"),),
    "mole.start_face": (_is("mole.stage", "gates"),),
    "mole.start_hand": (_is("mole.stage", "gates"),),
    "cache.variants": (_isnt("cache.latents", False),),
    "view.keep_region": (_REGIONS,),
    "view.min_in_view": (_REGIONS,),
    "view.close_up": (_REGIONS,),
    "view.bucket_step": (_BUCKETS,),
    "view.bucket_area": (_BUCKETS,),
    "view.bucket_crop": (_BUCKETS,),
    "regions.normalize": (_REGIONS,),
    "regions.mask": (_REGIONS,),
    "fairness.mode": (
        _BALANCES,
        Condition(
            "accumulate=1, or mode exact or ema",
            ("accumulate", "fairness.mode"),
            lambda accumulate, mode: accumulate == 1 or mode in ("exact", "ema"),
        ),
    ),
    "fairness.every": (_BALANCES, _isnt("fairness.mode", "exact")),
    "fairness.limit": (_BALANCES, _isnt("fairness.mode", "exact")),
    "fairness.pairwise": (_BALANCES,),
    "fairness.gradients": (_BALANCES, _SEVERAL),
    "fairness.radius": (_is("fairness.length", "radius", "clip"),),
    "fairness.weights": (_is("strategy", "ls"),),
    "fairness.alpha": (_is("strategy", "alpha"),),
    "fairness.ridge": (_is("strategy", *GRADIENT_BALANCING),),
    "fairness.floor": (_BALANCES, _REGIONS),
    "steer.at_most": (_BALANCES, _REGIONS),
    "steer.every": (_isnt("steer.at_most", None),),
    "steer.data": (_isnt("steer.at_most", None),),
    "steer.count": (_isnt("steer.data", None),),
    "fairness.measure_every": (
        Condition("a strategy that weighs losses", ("strategy",), lambda strategy: not _balances(strategy)),
    ),
    "fairness.dwa_temperature": (_is("strategy", "dwa"),),
    "fairness.dwa_window": (_is("strategy", "dwa"),),
    "fairness.uw_learning_rate": (_is("strategy", "uw"),),
    "fairness.torchjd.c": (_is("strategy", "torchjd:CAGrad"),),
    "fairness.torchjd.scale_mode": (_is("strategy", "torchjd:AlignedMTL"),),
    "fairness.torchjd.beta": (_is("strategy", "torchjd:GradVac"),),
    "fairness.torchjd.mu": (_is("strategy", "torchjd:STCH"),),
    "fairness.options": (
        Condition("a strategy of another package", ("strategy",), lambda strategy: of_another_package(str(strategy))),
    ),
    "optimizer.betas": (_isnt("optimizer.name", "sgd"),),
    "optimizer.epsilon": (_isnt("optimizer.name", "sgd"),),
    "optimizer.momentum": (_is("optimizer.name", "sgd"),),
    "schedule.warmup_steps": (_isnt("schedule.name", "constant"),),
    "schedule.power": (_is("schedule.name", "polynomial"),),
    "validation.data": (_VALIDATES,),
    "validation.count": (_VALIDATES,),
    "validation.share": (_VALIDATES, _is("validation.data", None)),
    "validation.timesteps": (
        Condition(
            f"{_VALIDATES}, or steer.at_most",
            ("validation.every", "steer.at_most"),
            lambda every, at_most: every != 0 or at_most is not None,
        ),
    ),
    "validation.mask": (_VALIDATES, _REGIONS),
    "preview.every": (_DRAWN,),
    "preview.at_start": (_DRAWN,),
    "preview.steps": (_DRAWN,),
    "preview.guidance": (_DRAWN,),
    "preview.strength": (_isnt("preview.count", 0),),
}


def conditions_of(setting: str) -> Iterator[Condition]:
    """Yield what a setting needs: the conditions of its sections, then its own; `setting` is a dotted name."""
    parts = setting.split(".")
    for end in range(1, len(parts) + 1):
        yield from EFFECTS.get(".".join(parts[:end]), ())


def failing(setting: str, values: Mapping[str, Any]) -> list[Condition]:
    """Return the conditions that don't hold; `values` has all settings by dotted name."""
    return [need for need in conditions_of(setting) if not need.holds(*(values.get(one) for one in need.deciders))]
