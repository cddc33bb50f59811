"""LoRA on a base's network: a frozen base in any precision, float32 updates W + (alpha / rank) B A, through peft.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from fairhuman.bases.base import Base, base_of, networks
from fairhuman.bases.sdxl import SDXL
from fairhuman.errors import ModelError
from fairhuman.models.frozen_linear import weight_shape
from fairhuman.models.locations import DIFFUSERS_FILE, find_weights_file
from fairhuman.models.lora_file import LoraLayer, kohya_metadata, read_lora, to_kohya
from fairhuman.models.model import TrainableModel
from fairhuman.models.registry import DTYPES
from fairhuman.models.settings import LoraSettings
from fairhuman.utils.files import write_atomically
from fairhuman.utils.safetensors_header import read_header, sort_header

KOHYA_FILE = "pytorch_lora_weights_kohya.safetensors"
_ADAPTER = "default"


def resolve_targets(network: nn.Module, targets: str | list[str], base: type[Base] = SDXL) -> list[str]:
    """Return the full names of the linear layers and convolutions whose names end in one of the targets.

    A preset's ends that match nothing are left out: not every network of a base has all layers.

    Raises:
        ModelError: the base has no such preset, or a target matches no layer; names some layers.
    """
    if isinstance(targets, str) and targets not in base.targets:
        presets = " or ".join(base.targets)
        raise ModelError(f"lora.targets: {targets!r} is no preset of this base, take {presets}, or name layers")
    layers = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    if isinstance(targets, str) and base is not SDXL:
        ends = tuple(end for end in base.targets[targets] if any(_matches(name, end) for name in layers))
    else:
        ends = tuple(base.targets[targets] if isinstance(targets, str) else targets)
    missing = [end for end in ends if not any(_matches(name, end) for name in layers)]
    if missing or not ends:
        examples = ", ".join(layers[:: max(1, len(layers) // 5)][:5])
        raise ModelError(
            f"lora.targets {targets!r}: each must match linear layers or convolutions of the {base.called}; "
            f"nothing matches {missing or 'an empty list'}; layers are for example {examples}"
        )
    return [name for name in layers if any(_matches(name, end) for end in ends)]


def add_lora(network: Any, settings: LoraSettings, seed: int, base: type[Base] = SDXL) -> dict[str, nn.Parameter]:
    """Freeze `network`, add low-rank updates (A random from `seed`, B zero); return their float32 parameters."""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or settings.rank,
        target_modules=resolve_targets(network, settings.targets, base),
        lora_dropout=settings.dropout,
        init_lora_weights="gaussian" if settings.init == "gaussian" else True,
    )
    network.requires_grad_(False)
    devices = sorted({p.device.index or 0 for p in network.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        network.add_adapter(config, adapter_name=_ADAPTER)
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    return parameters


def shape_mismatches(network: nn.Module, state: Mapping[str, Tensor], part: str) -> list[str]:
    """Return a message for each A or B in `state` (peft's names, prefixed by `part`) that fits no layer.

    Shapes: W [out, in, ...], A [rank, in, ...], B [out, rank, ...].
    """
    prefix = f"{part}."
    layers = dict(network.named_modules())
    found = []
    for key, tensor in ((k.removeprefix(prefix), t) for k, t in state.items() if k.startswith(prefix)):
        for half, axis, side in ((".lora_A.", 1, "inputs"), (".lora_B.", 0, "outputs")):
            name, matched, _ = key.partition(half)
            if not matched or tensor.ndim < 2:
                continue
            shape = weight_shape(layers.get(name))
            if shape is None:
                found.append(f"there is no layer {name}")
            elif tensor.shape[axis] != shape[axis]:
                found.append(f"{name} has {shape[axis]} {side}, not {tensor.shape[axis]}")
    return found


class LoraModel(TrainableModel):
    """Trains low-rank updates of some of the network's layers; the base is frozen.

    Args:
        pipeline: the updates are added to its network in place; its precision is unchanged.
        settings: rank, alpha, targets, dropout, and a LoRA to start from.
        seed: of the updates' initialisation, which depends on nothing else.
        gradient_checkpointing: less memory, about a third more time.
        size: height and width that it is trained at, which kohya's file states.

    Raises:
        ModelError: the LoRA to start from is missing, or has another rank or other layers.
    """

    def __init__(
        self,
        pipeline: Any,
        settings: LoraSettings,
        seed: int,
        gradient_checkpointing: bool = False,
        size: tuple[int, int] = (1024, 1024),
    ) -> None:
        super().__init__(pipeline)
        self.settings = settings
        self.size = size
        self._base = base_of(pipeline)
        network = self._base.network
        for part in networks(pipeline):
            part.requires_grad_(False)
        start = read_start(pipeline, settings)
        self._parameters = add_lora(network, settings, seed, type(self._base))
        _copy(start, self._parameters, settings.strength)
        network.train()
        if gradient_checkpointing:
            network.enable_gradient_checkpointing()

    @contextmanager
    def without_updates(self) -> Iterator[None]:
        """Within the block, `predict` is that of the frozen base. No gradient may be taken of what it gives."""
        network = self._base.network
        network.disable_adapters()
        try:
            with torch.no_grad():
                yield
        finally:
            network.enable_adapters()

    def trained(self) -> dict[str, nn.Parameter]:
        """Return A and B of every target, in module order."""
        return self._parameters

    def save(self, folder: Path) -> None:
        """Write one file for diffusers and, of SDXL, one for kohya, ComfyUI and A1111, each atomically.

        In the file for diffusers B is scaled by alpha / rank, as not every program that reads it looks for alpha in
        its metadata.

        Raises:
            ModelError: a value is too large for the precision of kohya's file, or a name isn't one of the network's.
        """
        network = self._base.network
        state = {name: t.detach().cpu().contiguous() for name, t in get_peft_model_state_dict(network).items()}
        metadata = network.peft_config[_ADAPTER].to_dict()
        # peft stores a set, whose order differs between processes; equal LoRAs must give equal files
        metadata["target_modules"] = sorted(metadata["target_modules"])
        strength = self.settings.strength
        scaled = {name: tensor * strength if ".lora_B." in name else tensor for name, tensor in state.items()}
        metadata["lora_alpha"] = metadata["r"]

        def write(partial: Path) -> None:
            self._base.save_lora(partial, scaled, metadata)
            sort_header(partial)
            check_names(partial, self._base)

        write_atomically(folder / DIFFUSERS_FILE, write)
        if isinstance(self._base, SDXL):
            self._save_kohya(folder, state)

    def _save_kohya(self, folder: Path, state: Mapping[str, Tensor]) -> None:
        settings = self.settings
        alpha, dtype = settings.alpha or settings.rank, DTYPES[settings.kohya_precision] or torch.float32
        kohya = to_kohya(state, alpha, self.pipeline.unet.config.layers_per_block, dtype)
        large = [name for name, tensor in kohya.items() if not bool(tensor.isfinite().all())]
        if large:
            raise ModelError(
                f"kohya file: {len(large)} of {len(kohya)} tensors don't fit into {settings.kohya_precision}, such as "
                f"{large[0]}. Checkpoints are kept: run the same command again with lora.kohya_precision=bf16"
            )
        schedule = self.pipeline.scheduler.config
        about = kohya_metadata(
            settings.title or "LoRA",
            self.size,
            settings.rank,
            alpha,
            convolutions=any(tensor.ndim == 4 for tensor in kohya.values()),
            velocity=schedule.prediction_type == "v_prediction",
            zero_snr=bool(schedule.get("rescale_betas_zero_snr")),
        )

        def write(partial: Path) -> None:
            save_file(kohya, partial, metadata=about)
            sort_header(partial)

        write_atomically(folder / KOHYA_FILE, write)


def check_names(file: Path, base: Base) -> None:
    """Check that every tensor of a LoRA file is of a layer of the base's network: ComfyUI only warns of others.

    Raises:
        ModelError: names the first that isn't.
    """
    layers = {name.replace(".base_layer", "") for name, _ in base.network.named_modules()}
    for key in read_header(file, f"LoRA {str(file)!r}").tensors:
        name, _, side = key.removeprefix(f"{base.part}.").partition(".lora_")
        if not key.startswith(f"{base.part}.") or name not in layers or side not in ("A.weight", "B.weight"):
            raise ModelError(f"LoRA {str(file)!r}: its tensor {key} is of no layer of the {base.part}")


def read_start(pipeline: Any, settings: LoraSettings) -> dict[str, LoraLayer]:
    """Read the LoRA to start from and check that the run trains the same layers at the same rank.

    Raises:
        ModelError: another rank, or other layers; names both.
    """
    if settings.start is None:
        return {}
    file = find_weights_file("lora.start", settings.start, DIFFUSERS_FILE)
    found = read_lora(file, pipeline)
    name = f"lora.start {str(file)!r}"
    base = base_of(pipeline)
    others = {network: len(layers) for network, layers in found.items() if network != base.part}
    if others:
        text = " and ".join(f"{count} layers of {network}" for network, count in others.items())
        raise ModelError(f"{name}: changes {text} too, but a run trains the {base.called}'s alone")
    layers = found.get(base.part, {})
    ranks = sorted({layer.rank for layer in layers.values()})
    if ranks != [settings.rank]:
        advice = f"; set lora.rank={ranks[0]}" if len(ranks) == 1 else ""
        text = ", ".join(map(str, ranks))
        raise ModelError(f"{name}: has rank {text}, but lora.rank is {settings.rank}{advice}")
    wanted = set(resolve_targets(base.network, settings.targets, type(base)))
    if wanted != layers.keys():
        missing, more = sorted(wanted - layers.keys()), sorted(layers.keys() - wanted)
        sides = [f"{len(missing)} are missing in the file, such as {missing[0]}"] if missing else []
        sides += [f"{len(more)} are in the file alone, such as {more[0]}"] if more else []
        raise ModelError(
            f"{name}: has {len(layers)} layers, but lora.targets={settings.targets} are {len(wanted)}: "
            f"{' and '.join(sides)}; set lora.targets to the file's layers"
        )
    return layers


def _copy(start: Mapping[str, LoraLayer], parameters: Mapping[str, nn.Parameter], strength: float) -> None:
    """Copy A and B, with B scaled so that the update is the file's although alpha may differ."""
    with torch.no_grad():
        for name, layer in start.items():
            down, up = (parameters[f"{name}.lora_{side}.{_ADAPTER}.weight"] for side in "AB")
            if not down.is_meta:  # only the memory of a run is computed
                down.copy_(layer.down.float().reshape(down.shape))
                up.copy_((layer.up.float() * (layer.scale / strength)).reshape(up.shape))


def _matches(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)
