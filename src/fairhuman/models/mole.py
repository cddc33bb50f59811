"""MoLE as a trainable model: its three stages and its file. The layers are in `mole_linear.py`."""

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fairhuman import __version__
from fairhuman.errors import ModelError
from fairhuman.models.locations import MOLE_FILE, find_mole
from fairhuman.models.model import TrainableModel
from fairhuman.models.mole_linear import add_mole, mole_layers
from fairhuman.models.settings import EXPERTS, Expert, MoleSettings
from fairhuman.models.weights import copy_state, load_state, read_finite
from fairhuman.utils.files import write_atomically
from fairhuman.utils.parse import parse_json
from fairhuman.utils.safetensors_header import sort_header

FORMAT = "fairhuman-mole-1"
_DIGEST = "experts.sha256"


@dataclass(frozen=True)
class MoleFile:
    """A MoLE file, described by its header: stage (gates: a complete MoLE), experts, and shapes [out, in] of the base's
    layers.
    """

    path: Path
    stage: str
    experts: Mapping[str, Expert]
    shapes: Mapping[str, list[int]]

    def check(self, unet: UNet2DConditionModel) -> None:
        """Check that the file is for this U-Net.

        Raises:
            ModelError: a layer differs; names the first one and both shapes.
        """
        shapes = {name: [layer.out_features, layer.in_features] for name, layer in mole_layers(unet).items()}
        for name in dict.fromkeys([*shapes, *self.shapes]):
            expected, found = shapes.get(name, "absent"), self.shapes.get(name, "absent")
            if expected != found:
                raise ModelError(
                    f"MoLE {str(self.path)!r}: is for another U-Net: layer {name} [out, in] is {found}, "
                    f"expected {expected}"
                )

    def copy_to(self, parameters: dict[str, nn.Parameter]) -> None:
        """Copy the file's tensors into parameters of the same names; do nothing if the parameters are on `meta`.

        Raises:
            ModelError: the tensors don't match the header, or one isn't finite.
        """
        if any(parameter.is_meta for parameter in parameters.values()):
            return
        name = f"MoLE {str(self.path)!r}"
        tensors = read_finite(self.path, name)
        try:
            load_state(parameters, tensors)
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from error


def read_mole_header(path: Path) -> MoleFile:
    """Read the header of a MoLE.

    Raises:
        ModelError: there is no such file, or it wasn't written by `MoleModel.save`.
    """
    file = find_mole(path)
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise ValueError(f"format is {metadata.get('format')!r}")
        ranks, alphas = parse_json(metadata["ranks"]), parse_json(metadata["alphas"])
        experts = {name: Expert(int(ranks[name]), float(alphas[name])) for name in EXPERTS if name in ranks}
        shapes = {str(name): list(shape) for name, shape in parse_json(metadata["base_shapes"]).items()}
        _check_sizes(experts.values(), shapes.values(), file.stat().st_size)
        return MoleFile(file, metadata["stage"], experts, shapes)
    except (SafetensorError, OSError, ArithmeticError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"MoLE {str(file)!r}: expected a {FORMAT} file, found {error}") from error


def _check_sizes(experts: Collection[Expert], shapes: Collection[list[int]], size: int) -> None:
    """Check what a header states before memory is taken for it.

    Raises:
        ValueError: a rank or alpha that can't be, or ranks whose weights (2 bytes each at least) aren't in the file.
    """
    for expert in experts:
        if expert.rank < 1 or not math.isfinite(expert.alpha):
            raise ValueError(f"rank {expert.rank} and alpha {expert.alpha}")
    if 2 * sum(expert.rank for expert in experts) * sum(map(sum, shapes)) > size:
        raise ValueError(f"ranks {[expert.rank for expert in experts]}, whose weights aren't in its {size:,} bytes")


def is_mole(file: Path) -> bool:
    """Whether a file was written by `MoleModel.save`."""
    try:
        with safe_open(file, framework="pt") as opened:
            return bool((opened.metadata() or {}).get("format") == FORMAT)
    except (SafetensorError, OSError):
        return False


def load_mole(unet: UNet2DConditionModel, path: Path) -> MoleFile:
    """Add a MoLE, or one of its experts, to a U-Net for sampling, in the U-Net's dtype and unfused (see `mole_linear`).

    Raises:
        ModelError: there is no such file, or it is for another U-Net.
    """
    file = read_mole_header(path)
    file.check(unet)
    dtype = unet.dtype
    parameters = add_mole(unet, file.experts, file.stage == "gates", seed=0)
    for parameter in parameters.values():
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(False)
    file.copy_to(parameters)
    return file


class MoleModel(TrainableModel):
    """Trains one expert, or the gates of two frozen experts, in float32; the base is frozen.

    Args:
        pipeline: experts and gates are added to its U-Net in place; its precision is unchanged.
        settings: stage, rank, alphas, and the experts' files for stage gates.
        seed: of the random initialisation.
        gradient_checkpointing: less memory, about a third more time.

    Raises:
        ModelError: a start file is missing or has another stage, rank, alpha or U-Net.
    """

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        settings: MoleSettings,
        seed: int,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(pipeline)
        self.settings = settings
        unet = pipeline.unet
        for part in (unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            part.requires_grad_(False)
        starts = _starts(unet, settings)
        self._shapes = {name: [layer.out_features, layer.in_features] for name, layer in mole_layers(unet).items()}
        self._all = add_mole(unet, settings.experts, settings.stage == "gates", seed)
        frozen = {name: p for name, p in self._all.items() if settings.stage == "gates" and not _is_gate(name)}
        for expert, start in starts.items():
            start.copy_to({name: p for name, p in frozen.items() if f".{expert}." in name})
        for parameter in frozen.values():
            parameter.requires_grad_(False)
        self._frozen = frozen
        self._trained = {name: p for name, p in self._all.items() if name not in frozen}
        unet.train()
        if gradient_checkpointing:
            unet.enable_gradient_checkpointing()

    def trained(self) -> dict[str, nn.Parameter]:
        """Return A and B of the trained expert, or all gates, in module order."""
        return self._trained

    def trainable_state(self) -> dict[str, Tensor]:
        """Return copies of the trained weights by name, and a digest of the frozen experts that gates depend on."""
        state = super().trainable_state()
        return {**state, _DIGEST: self._digest} if self._frozen else state

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore a state exactly.

        Raises:
            ModelError: names or shapes differ, or the gates were trained with other experts.
        """
        state = dict(state)
        if self._frozen and not torch.equal(state.pop(_DIGEST, torch.empty(0)), self._digest):
            starts = " and ".join(str(place) for place in self.settings.starts.values())
            raise ModelError(f"trainable state: the gates were trained with other experts than {starts}")
        super().load_trainable_state(state)

    @cached_property
    def _digest(self) -> Tensor:
        """SHA-256 of the frozen experts' weights, 32 bytes."""
        found = hashlib.sha256()
        for parameter in self._frozen.values():
            found.update(parameter.detach().cpu().contiguous().numpy().data)
        return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)

    def save(self, folder: Path) -> None:
        """Write all experts and gates to one file, atomically; equal weights give equal files."""
        experts = self.settings.experts
        metadata = {
            "format": FORMAT,
            "stage": self.settings.stage,
            "ranks": json.dumps({name: expert.rank for name, expert in experts.items()}),
            "alphas": json.dumps({name: expert.alpha for name, expert in experts.items()}),
            "base_shapes": json.dumps(self._shapes),
            "fairhuman": __version__,
        }
        state = copy_state(self._all)

        def write(partial: Path) -> None:
            save_file(state, partial, metadata)
            sort_header(partial)

        write_atomically(folder / MOLE_FILE, write)


def _starts(unet: UNet2DConditionModel, settings: MoleSettings) -> dict[str, MoleFile]:
    """Return the checked expert files for stage gates."""
    found: dict[str, MoleFile] = {}
    for name, place in settings.starts.items():
        if place is not None:
            file, expected = read_mole_header(place), {name: settings.experts[name]}
            if (file.stage, file.experts) != (name, expected):
                raise ModelError(
                    f"mole.start_{name} {str(file.path)!r}: must be of stage {name} with {expected[name]}, "
                    f"found stage {file.stage} with {', '.join(map(str, file.experts.values()))}"
                )
            file.check(unet)
            found[name] = file
    return found


def _is_gate(name: str) -> bool:
    return ".token_gate." in name or ".picture_gates." in name
