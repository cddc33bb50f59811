"""The table of what `gpu.py` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from fairhuman.bases.published import PUBLISHED
from fairhuman.train.settings import AUDITS, Mode
from fairhuman.utils.shipped import FLOW_UNTRAINED

Kind = Literal["bare", "steps", "run", "shape"]
COMMON = (
    "precision=bf16",
    "gradient_checkpointing=true",
    "view.flip_probability=0",
    "fairness.measure_every=0",
    "fairness.limit=-1",
)
TRUE = (*COMMON, "resolution=1024", "batch_size=1", "lora.rank=64")
SMALL = (*COMMON, "resolution=64", "batch_size=1", "lora.rank=4")
EXACT, LS, OUTPUT = "exact", "LS", "output"
WAYS: Mapping[str, tuple[str, ...]] = {
    "bare loop": ("strategy=ls",),
    LS: ("strategy=ls",),
    "exact, pairs": ("fairness.mode=exact", "fairness.pairwise=true"),
    **{mode: (f"fairness.mode={mode}",) for mode in get_args(Mode)},
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: settings of a training run, and what is measured of it.

    kind: `bare` and `steps`: single steps on noise, of a bare loop or of the trainer; `run`: the peak of a whole run;
        `shape`: steps of a base whose weights aren't on disk, without text encoders.
    """

    part: str
    name: str
    kind: Kind
    settings: tuple[str, ...]


def cells(small: bool) -> list[Cell]:
    """Return all measurements, the most important first."""
    low, high = (2, 8) if small else (16, 256)
    bases = (FLOW_UNTRAINED,) if small else tuple(PUBLISHED)
    modes = ("bare loop", LS, *get_args(Mode))
    variants: list[tuple[str, dict[str, tuple[str, ...]], tuple[str, ...]]] = [
        ("modes", {"": ()}, modes),
        ("checkpointing", {"no checkpointing": ("gradient_checkpointing=false",)}, (LS, OUTPUT)),
        ("batches", {"batch 4": ("batch_size=4",)}, ("bare loop", LS, OUTPUT)),
        ("ranks", {f"rank {high}": (f"lora.rank={high}",)}, (LS, OUTPUT, "exact, pairs")),
        ("bits", {kind: (f"base.quantize={kind}",) for kind in ("int8", "nf4", "fp8")}, (LS, OUTPUT)),
        ("offload", {"offloaded": ("base.offload=true",)}, (LS, OUTPUT, EXACT)),
        ("compile", {"compiled": ("compile=true",)}, ("bare loop", LS, OUTPUT)),
        ("precisions", {kind: (f"precision={kind}",) for kind in ("fp16", "fp32")}, (LS, OUTPUT)),
        ("caches", {"nothing cached": ("cache.latents=false", "cache.text=false")}, (LS, OUTPUT)),
        ("sizes", {} if small else {"512 px": ("resolution=512",)}, (LS, OUTPUT)),
        ("ranks", {f"rank {low}": (f"lora.rank={low}",)}, (LS, OUTPUT)),
        ("optimizers", {"8-bit Adam": ("optimizer.name=adamw8bit",)}, (LS,)),
        ("kinds", {kind: (f"kind={kind}",) for kind in ("controlnet", "t2i_adapter", "mole", "full")}, (LS, OUTPUT)),
    ]
    runs = [Cell("runs", f"rank {rank}, {way}", "run", (f"lora.rank={rank}", *WAYS[way])) for rank, way in _RUNS[small]]
    of_bases = [Cell("bases", name, "shape", (f"model={name}", "lora.rank=16", *_own(OUTPUT))) for name in bases]
    steps = [
        Cell(part, f"{name}, {way}" if name else way, "bare" if way == "bare loop" else "steps", (*own, *_own(way)))
        for part, named, ways in variants
        for name, own in named.items()
        for way in ways
    ]
    return [*steps[: len(modes)], *runs, *steps[len(modes) :], *of_bases]


_RUNS = {False: ((64, OUTPUT), (256, EXACT)), True: ((4, OUTPUT),)}


def _own(way: str) -> tuple[str, ...]:
    """Return the settings of a way, for an amortised mode without audits after its warm-up."""
    return (*WAYS[way], "fairness.every=1000000") if way in AUDITS else WAYS[way]
