"""What a training run needs before it can start: the findings of `fairhuman train --dry-run`, one a line.

Importing this module takes no torch: what can be told at once is told by `check_at_once`.
"""

import os
import re
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fairhuman import config
from fairhuman.bases.names import BASES
from fairhuman.data.look.built import MANIFEST
from fairhuman.data.look.reading import ignored_by_build
from fairhuman.data.sources import source_kind
from fairhuman.data.sources.folder import PICTURE_SUFFIXES
from fairhuman.data.sources.imagefolder import has_metadata
from fairhuman.errors import DataError, FairHumanError, ModelError, RecipeError, TrainingError
from fairhuman.models.locations import NETWORKS, check_base, is_hub_id, is_whole, name_of
from fairhuman.models.settings import BaseSettings
from fairhuman.report.run_folder import read_json, read_metrics
from fairhuman.report.text import duration, percent
from fairhuman.train.bases import check_settings
from fairhuman.train.built import bare_message, bare_sources, builds, built_folder, built_recipe
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import check_resumable_early, free_on_resume, recipe_of_run
from fairhuman.train.settings import GRADIENT_BALANCING, LOSS_WEIGHTING, NO_EIGHTBIT
from fairhuman.utils.files import nearest_existing, unwritable
from fairhuman.utils.plugins import STRATEGIES, load_plugin
from fairhuman.utils.shipped import SHIPPED

if TYPE_CHECKING:
    from fairhuman.data.pictures.notes import LoadReport
    from fairhuman.train.data import RunData
    from fairhuman.train.memory import Memory

GIB = 2**30
BF16_SINCE = 8  # major number of the compute capability whose GPUs have instructions for it: Ampere
TINY = 2**20  # pixels of a batch that fit into any memory with a model that ships
HUB_WEIGHTS, GPU, DISK = "hub weights", "GPU", "disk"  # what another machine or a download can provide
CPU_MARGIN = 1.08  # of main memory: at SDXL's true size a run had up to 7 % more resident than is computed
_MORE = "a run may take 8 % more than computed"
# Settings that hardly change how long a step takes; "x." is a whole section.
SPEED_FREE = frozenset(
    {
        *("data", "build", "out", "seed", "steps", "learning_rate", "checkpoint_every", "keep_checkpoints"),
        *("cache.folder", "source.cache", "lora.title"),
        *("schedule.", "validation.", "preview.", "track.", "noise.", "ema."),
    }
)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GB|GiB|G)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StartFinding:
    """One thing that a run needs.

    Attributes:
        what: the thing, such as `data` or `memory`.
        state: `missing` keeps the run from starting here; a `note` doesn't.
        text: what was found and, where it is missing, what to do.
    """

    what: str
    state: Literal["ok", "note", "missing"]
    text: str

    def line(self) -> str:
        """The finding as a line of a dry run."""
        return f"{self.state:<8}{self.what}: {self.text}"


def check_at_once(recipe: TrainRecipe) -> int:
    """Check what needs no torch; return the step from which the run goes on.

    Raises:
        DataError: a data set doesn't exist, is a bare folder of photos, or was built in another way than is asked for.
        ModelError: there is no such model.
        PluginError: the strategy's package can't be loaded.
        RecipeError: the run in `out` has other settings, see `check_resumable`; `out` holds pictures or a data set; or
            a setting isn't for the base.
        TrainingError: the optimiser's package isn't installed.
    """
    if _lacks_eightbit(recipe):
        raise TrainingError(NO_EIGHTBIT)
    if recipe.strategy not in (*LOSS_WEIGHTING, *GRADIENT_BALANCING):
        load_plugin(STRATEGIES, recipe.strategy)
    for name, path in _named_data(recipe):
        try:
            source_kind(path, recipe.source.format)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    for source in bare_sources(recipe):
        if not builds(recipe, source):
            raise DataError(bare_message(recipe, source))
    check_base(recipe.model, recipe.base)
    foreign = _foreign_folder(recipe)
    if foreign is not None:
        raise RecipeError(f"out {foreign}")
    check_settings(recipe)
    step = check_resumable_early(built_recipe(recipe))
    if not step:  # a run that has begun goes on as it is
        for path in data_paths(recipe):
            for text in ignored_by_build(path, recipe.source):
                raise DataError(text)
    return step


def _lacks_eightbit(recipe: TrainRecipe) -> bool:
    """Whether the run's optimiser needs bitsandbytes, which isn't installed."""
    return recipe.optimizer.name == "adamw8bit" and find_spec("bitsandbytes") is None


def _foreign_folder(recipe: TrainRecipe) -> str | None:
    """Why a run can't be written into its folder, which holds pictures or a data set; None: it can."""
    out = recipe.out
    if not out.is_dir() or (out / "metrics.jsonl").is_file():
        return None
    own = any(path.exists() and path.samefile(out) for path in data_paths(recipe))
    if own or (out / MANIFEST).is_dir() or has_metadata(out):
        return f"{str(out)!r}: is a data set, whose files a run would replace; give a new folder"
    if (out / "recipe.yaml").is_file():
        return None
    foreign = (file.name for file in out.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES)
    name = next((name for name in sorted(foreign) if not name.startswith(".")), None)
    return None if name is None else f"{str(out)!r}: holds {name}, which no run wrote; give a new folder"


def findings(recipe: TrainRecipe, device_memory: int | None = None) -> Iterator[StartFinding]:
    """Yield what was found, as it is found: model, files, data, memory, disk and hours.

    Args:
        recipe: the run.
        device_memory: bytes of the device that it is for; None: this machine's.

    Raises:
        RecipeError: the run in `out` has other settings, a setting isn't for the base, or `fairness.options` don't fit.
        PluginError: the strategy's package can't be loaded.
    """
    import torch

    from fairhuman.train.fairness import build_strategy

    build_strategy(recipe, torch.device("cpu"))
    check_settings(recipe)
    step = check_resumable_early(built_recipe(recipe))
    problem = _foreign_folder(recipe)
    if problem is None and (reason := unwritable(recipe.out)):
        problem = f"{str(recipe.out)!r}: can't be written: {reason}"
    if problem is not None:
        yield StartFinding("out", "missing", problem)
    if _lacks_eightbit(recipe):
        yield StartFinding("optimizer", "missing", NO_EIGHTBIT)
    for text in recipe.short_of_its_rate:
        yield StartFinding("schedule", "note", text)
    model = model_finding(recipe.model, recipe.base)
    yield model
    yield from _starting_weights(recipe)
    data = None
    known = model.state == "ok" or model.what == HUB_WEIGHTS
    for found in run_data(recipe, known, step > 0):
        if isinstance(found, StartFinding):
            yield found
        else:
            data = found
    if data is not None:
        yield from _long_captions(recipe, data)
    misfit = _start_misfit(recipe) if known else None
    if misfit is not None:
        yield StartFinding("lora.start", "missing", misfit)
        memory: Memory | str = "lora.start doesn't fit"
    else:
        memory = _memory_of(recipe) if known else "the model is missing"
    yield _device(recipe, memory, device_memory)
    if device_memory is None:
        yield from _no_gpu(recipe)
        yield from _uncompilable(recipe)
    yield from slow_precision(recipe)
    yield _disk(recipe, memory, data)
    yield _hours(recipe, step)


def model_finding(model: str, base: BaseSettings) -> StartFinding:
    """Whether a model is here, or can be downloaded."""
    try:
        check_base(model, base)
    except ModelError as error:
        return StartFinding("model", "missing", str(error))
    if model in SHIPPED:
        return StartFinding("model", "ok", f"{model}, which ships with fairhuman")
    if Path(model).exists() or not is_hub_id(model) or (name_of(model).flow and is_whole(model)):
        return StartFinding("model", "ok", model)
    return _on_the_hub(model)


def _on_the_hub(model: str) -> StartFinding:
    """Whether a hub's model is on this machine or can be downloaded."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(model, "model_index.json")
    except HFValidationError as error:
        return StartFinding("model", "missing", f"{model}: {error}")
    if isinstance(index, str):
        parts = [Path(index).with_name(name) for name in NETWORKS]
        if all(any(part.glob("*.safetensors")) for part in parts):
            return StartFinding("model", "ok", f"{model}, in the hub's cache on this machine")
    try:
        tags = HfApi().model_info(model, timeout=5.0).tags or ()
    except Exception as error:  # of the network, of the hub, or its offline mode
        reason = f"the hub can't be asked ({type(error).__name__})"
        return StartFinding(
            HUB_WEIGHTS,
            "missing",
            f"{model} isn't on this machine and {reason}; connect to the network or give a folder as model=FOLDER",
        )
    if not name_of(model).flow and any(f"diffusers:{kind}" in tags for kind, name in BASES.items() if name.flow):
        return StartFinding("model", "missing", f"{model} isn't on this machine: run `hf download {model}`")
    return StartFinding("model", "ok", f"{model}, which is downloaded from the hub at the start")


def _starting_weights(recipe: TrainRecipe) -> Iterator[StartFinding]:
    """Files that the run's own weights start from."""
    control = recipe.control
    starts: dict[str, Path | str | None] = {f"mole.start_{name}": start for name, start in recipe.mole.starts.items()}
    starts |= {f"{recipe.kind}.start": control.start if control is not None else None}
    if recipe.kind == "lora" and recipe.lora.start is not None and not recipe.lora.start.exists():
        yield StartFinding("lora.start", "missing", f"{recipe.lora.start}: doesn't exist yet")
    for name, start in starts.items():
        if start is not None and not Path(start).exists() and not is_hub_id(str(start)):
            yield StartFinding(name, "missing", f"{start}: doesn't exist yet")


def _start_misfit(recipe: TrainRecipe) -> str | None:
    """Why a LoRA that is there can't be what the run starts from; None: it can, or there is none."""
    if recipe.kind != "lora" or recipe.lora.start is None or not recipe.lora.start.exists():
        return None
    from fairhuman.models.lora import read_start
    from fairhuman.train.memory import shape_of

    try:
        read_start(shape_of(recipe.model), recipe.lora)
    except ModelError as error:
        return str(error)
    return None


def data_paths(recipe: TrainRecipe) -> list[Path]:
    """Return the data sets of a run, those held out too."""
    return [path for _, path in _named_data(recipe)]


def _named_data(recipe: TrainRecipe) -> list[tuple[str, Path]]:
    """The data sets of a run, each with the setting that names it."""
    named = [("data", source.path) for source in recipe.sources]
    held_out = recipe.validation.data
    if held_out is not None and recipe.validation.every:
        named.append(("validation.data", held_out))
    if recipe.steer.data is not None and recipe.steer.at_most is not None:
        named.append(("steer.data", recipe.steer.data))
    return named


def _bare_folders(recipe: TrainRecipe) -> Iterator[StartFinding]:
    for source in bare_sources(recipe):
        if builds(recipe, source):
            yield StartFinding(
                "data", "note", f"{source.path}: would first be built into {built_folder(recipe, source)}"
            )
        else:
            yield StartFinding("data", "missing", bare_message(recipe, source))


def run_data(recipe: TrainRecipe, model_known: bool, begun: bool) -> "Iterator[StartFinding | RunData]":
    """Yield findings about the data, then the data if it can be used.

    Args:
        recipe: the run.
        model_known: whether the model's step, which decides on the buckets, is known.
        begun: whether the run goes on, so that it reads its data as before.
    """
    from fairhuman.data.pictures.notes import LoadReport
    from fairhuman.train.data import load_data

    missing = [path for path in data_paths(recipe) if not path.exists()]
    bare = list(_bare_folders(recipe))
    yield from (StartFinding("data", "missing", f"{path}: doesn't exist yet") for path in missing)
    yield from bare
    built = [] if missing else [text for path in data_paths(recipe) for text in ignored_by_build(path, recipe.source)]
    yield from (StartFinding("data", "note" if begun else "missing", text) for text in built)
    if missing or bare or (built and not begun):
        return
    notes, source = LoadReport(), recipe.source.model_copy(update={"cache": False})  # a dry run writes nothing
    try:
        data = load_data(recipe.model_copy(update={"source": source}), notes)
    except FairHumanError as error:
        yield StartFinding("data", "missing", str(error))
        return
    yield from data_findings(recipe, data, notes, model_known)
    yield data


def data_findings(
    recipe: TrainRecipe, data: "RunData", notes: "LoadReport", model_known: bool
) -> Iterator[StartFinding]:
    """Yield what a run sees of its data; what depends on the model's step only if the model is known."""
    from fairhuman.train.views import view_lines

    held_out = len(data.held_out) if data.held_out is not None else 0
    text = f"{recipe.data_name}: {len(data.train)} pictures to train on, {held_out} held out"
    if model_known:  # its step decides on the buckets
        text += f"; {percent(data.cropped_share, 1)} of a picture's area is cropped away on average"
    yield StartFinding("data", "ok", text)
    for text in data.lines():
        yield StartFinding("data", "note", text)
    for text in _having(recipe, data):
        yield StartFinding("regions", "note", text)
    for text in view_lines(recipe, data.train, data.coverage) if model_known else ():
        yield StartFinding("view", "note", text)
    for action, reasons in notes.counts().items():
        for reason, number in reasons.items():
            yield StartFinding("data", "note", f"{action}: {reason} ({number})")


def _having(recipe: TrainRecipe, data: "RunData") -> Iterator[str]:
    """How many pictures have each region."""
    parts = {"to train on": data.train, "held out": data.held_out}
    for name in recipe.regions.names:
        counts = [
            f"{sum(record.has(name) for record in part.records)} of {len(part.records)} {words}"
            for words, part in parts.items()
            if part is not None
        ]
        yield f"{name}: in {' and '.join(counts)}"


def _long_captions(recipe: TrainRecipe, data: "RunData") -> Iterator[StartFinding]:
    """Count the captions whose end the model doesn't read, by its own tokenizer."""
    from fairhuman.train.cache.plan import captions
    from fairhuman.train.captions import cut_captions, reader_of

    try:
        base = reader_of(recipe.model)
    except (OSError, ValueError, FairHumanError) as error:
        yield StartFinding("captions", "note", f"not counted: {' '.join(str(error).split())[:500]}")
        return
    for text in cut_captions(base, captions(recipe, data)) if base is not None else ():
        yield StartFinding("captions", "note", text)


def _memory_of(recipe: TrainRecipe) -> "Memory | str":
    """The run's memory, or why it isn't known."""
    from fairhuman.train.memory import memory_of

    try:
        return memory_of(recipe)
    except (OSError, ValueError, FairHumanError) as error:
        return " ".join(str(error).split())[:500]


def _device(recipe: TrainRecipe, memory: "Memory | str", device_memory: int | None) -> StartFinding:
    """Whether the run fits into the memory of the device."""
    from fairhuman.train.guard import device_bytes
    from fairhuman.train.memory import cheapest_changes
    from fairhuman.utils.torch_device import without_gpu

    if isinstance(memory, str):
        return StartFinding("memory", "note", f"not known: {memory}")
    cpu = not device_memory and without_gpu()
    limit = device_memory or device_bytes()
    needed = memory.on_cpu if cpu else memory.needed
    has = f"main memory has {limit / GIB:.1f}, no GPU" if cpu else f"the device has {limit / GIB:.1f}"
    text = f"about {needed / GIB:.1f} GiB needed, {has}"
    if memory.offloaded and not cpu:
        text += f"; {memory.offloaded / GIB:.1f} GiB of weights stay in main memory"
    if needed * (CPU_MARGIN if cpu else 1) <= limit:
        return StartFinding("memory", "ok", text)
    if cpu:
        return StartFinding(GPU, "missing", f"{text}; {_MORE}")
    if recipe.processes.sharding == "fsdp":
        return StartFinding("memory", "note", f"{text}: so by one process; how much less shards take isn't known")
    cheapest = cheapest_changes(recipe, limit, 1)
    advice = f"; cheapest change that fits: {cheapest[0]}" if cheapest else ""
    return StartFinding("memory", "missing", text + advice)


def _no_gpu(recipe: TrainRecipe) -> Iterator[StartFinding]:
    """That a model which doesn't ship would be trained on the CPU."""
    from fairhuman.utils.torch_device import without_gpu

    if recipe.model not in SHIPPED and without_gpu():
        yield StartFinding(
            "device",
            "note",
            f"no GPU found: {name_of(recipe.model).title} would train on the CPU, which takes days; `fairhuman doctor` "
            "lists the devices",
        )


def _uncompilable(recipe: TrainRecipe) -> Iterator[StartFinding]:
    """Weights that this GPU can't compile."""
    from fairhuman.train.model import fp8_misfit
    from fairhuman.utils.torch_device import default_device

    if problem := fp8_misfit(recipe, default_device()):
        yield StartFinding("compile", "missing", problem)


def slow_precision(recipe: TrainRecipe) -> Iterator[StartFinding]:
    """Yield a note if this device has no instructions for the run's half precision. ARM's CPUs aren't asked for."""
    if recipe.precision == "fp32":
        return
    import torch

    from fairhuman.utils.torch_device import without_gpu

    if not without_gpu():
        major, minor = torch.cuda.get_device_capability()
        if recipe.precision == "bf16" and major < BF16_SINCE:
            advice = "which can be much slower" if name_of(recipe.model).flow else "take precision=fp16"
            yield StartFinding(
                "precision",
                "note",
                f"this GPU, of compute capability {major}.{minor}, has no instructions for bf16 (those from "
                f"{BF16_SINCE}.0 on have): {advice}",
            )
        return
    cpu = torch.cpu.get_capabilities()
    if cpu["architecture"] == "x86_64" and not any(cpu.get(f"{kind}_{recipe.precision}") for kind in ("avx512", "amx")):
        yield StartFinding(
            "precision",
            "note",
            f"this CPU has no instructions for {recipe.precision}: the small SDXL takes 2 times (AVX-512) to 10 times "
            "(AVX2) as long as with precision=fp32",
        )


def check_main_memory(recipe: TrainRecipe) -> None:
    """Refuse a run without a GPU that main memory can't hold, before anything is loaded.

    Raises:
        TrainingError: names the need, what is there and the cheapest changes that fit.
    """
    from fairhuman.train.guard import device_bytes
    from fairhuman.train.memory import cheapest_changes
    from fairhuman.utils.torch_device import without_gpu

    height, width = recipe.size
    tiny = recipe.model in SHIPPED and recipe.batch_size * height * width <= TINY
    memory = "a GPU's is used" if tiny or not without_gpu() else _memory_of(recipe)
    if isinstance(memory, str):  # not known either: loading says what is wrong
        return
    here, limit = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), device_bytes()
    room = int(limit / CPU_MARGIN) // here
    if memory.on_cpu <= room:
        return
    changes = "; or ".join(map(str, cheapest_changes(recipe, room, cpu=True))) or "none, it needs a GPU"
    each = f" for each of {here} processes" if here > 1 else ""
    raise TrainingError(
        f"there is no GPU, and the run needs about {memory.on_cpu / GIB:.1f} GiB of main memory{each}, which has "
        f"{limit / GIB:.1f}. Cheapest changes that fit: {changes}. {_MORE.capitalize()}; --skip-memory-check starts "
        "it all the same"
    )


def _disk(recipe: TrainRecipe, memory: "Memory | str", data: "RunData | None") -> StartFinding:
    """Whether checkpoints, result and caches fit on the disk of `out`."""
    if isinstance(memory, str):
        return StartFinding(DISK, "note", f"not known: {memory}")
    needed, caches = result_bytes(recipe, memory), ""
    if data is not None and (recipe.cache.latents or recipe.cache.text):
        from fairhuman.train.cache.plan import budget

        try:
            caches = f"; {budget(recipe, data).line()}"
        except FairHumanError as error:
            caches = f"; cache: {error}"
    existing = nearest_existing(recipe.out)
    free = shutil.disk_usage(existing).free
    text = f"about {needed / GIB:.2f} GiB for checkpoints and result, {free / GIB:.1f} free at {existing}{caches}"
    return StartFinding(DISK, "ok" if needed <= free else "missing", text)


def result_bytes(recipe: TrainRecipe, weights: "Memory") -> int:
    """Bytes of a run's checkpoints and result on disk."""
    checkpoints = (recipe.keep_checkpoints + 1) * (weights.trained + weights.optimizer)
    return checkpoints + 2 * weights.trained + (weights.frozen if recipe.kind == "full" else 0)


def _hours(recipe: TrainRecipe, step: int) -> StartFinding:
    """How long the remaining steps take at a measured speed."""
    left = recipe.steps - step
    begun = f"step {step} of {recipe.steps} is done; " if step else ""
    if not left:
        return StartFinding("hours", "ok", f"{begun}nothing is left to train")
    measured = measured_speed(recipe)
    if measured is None:
        return StartFinding(
            "hours", "note", f"{begun}not known: no run with these settings was measured in {recipe.out.parent} yet"
        )
    speed, run = measured
    time = duration(left * recipe.samples(1) / speed)
    return StartFinding(
        "hours", "ok", f"{begun}{time} for {left} steps at {speed:.3g} pictures/s, measured in {run}, without previews"
    )


def measured_speed(recipe: TrainRecipe) -> tuple[float, Path] | None:
    """Pictures a second of one process of a run in `out` or beside it.

    The run's steps cost the same, on the same kind of device.
    """
    from fairhuman.utils.torch_device import default_device

    here = default_device().type
    beside = sorted(recipe.out.parent.glob("*/recipe.yaml")) if recipe.out.parent.is_dir() else []
    for run in dict.fromkeys([recipe.out, *(file.parent for file in beside)]):
        summary = read_json(run / "summary.json")
        try:
            earlier = recipe_of_run(run)
            another = [name for name in config.differences(earlier, recipe) if not free_on_resume(name, SPEED_FREE)]
            rates = _rates(run) if not another and str(summary.get("device", "")).startswith(here) else []
        except (RecipeError, DataError):  # another run's damage is no reason to end this one
            continue
        if rates:
            processes = summary.get("processes")  # the rates are of all of them
            return statistics.median(rates) / (processes if isinstance(processes, int) and processes > 1 else 1), run
    return None


def _rates(run: Path) -> Sequence[float]:
    found = read_metrics(run).columns.get("images_per_s")
    return [] if found is None else [float(rate) for rate in found[-50:] if rate > 0]


def parse_memory(text: str, option: str = "--device-memory") -> int:
    """Return the bytes of a device's memory such as `12GB`; a GB is 2³⁰ bytes, as devices are sold.

    `option` is for the message.

    Raises:
        RecipeError: it isn't a size.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise RecipeError(f"{option}: expected a size such as 12GB, found {text!r}")
    return int(float(found[1]) * GIB)
