"""LoRA on the U-Net: a frozen base in any precision, float32 updates W + (alpha / rank) B A, through peft.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import convert_unet_state_dict_to_peft
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from fairhuman.data.samples.batch import Batch
from fairhuman.errors import ModelError
from fairhuman.models.full import predict_noise
from fairhuman.models.locations import DIFFUSERS_FILE
from fairhuman.models.settings import LoraSettings
from fairhuman.models.weights import NamedWeights
from fairhuman.utils.files import write_atomically

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2")
KOHYA_FILE = "pytorch_lora_weights_kohya.safetensors"
_ADAPTER = "default"


def resolve_targets(unet: UNet2DConditionModel, targets: str | list[str]) -> list[str]:
    """Return the full names of the linear layers and convolutions whose names end in one of the targets.

    Raises:
        ModelError: a target matches no layer; names some layers.
    """
    ends = (
        {"attention": ATTENTION, "attention+conv": ATTENTION + CONVOLUTIONS}.get(targets, ())
        if isinstance(targets, str)
        else tuple(targets)
    )
    layers = [name for name, module in unet.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    missing = [end for end in ends if not any(_matches(name, end) for name in layers)]
    if missing or not ends:
        examples = ", ".join(layers[:: max(1, len(layers) // 5)][:5])
        raise ModelError(
            f"lora.targets {targets!r}: each must match linear layers or convolutions of the U-Net; "
            f"nothing matches {missing or 'an empty list'}; layers are for example {examples}"
        )
    return [name for name in layers if any(_matches(name, end) for end in ends)]


def add_lora(unet: UNet2DConditionModel, settings: LoraSettings, seed: int) -> dict[str, nn.Parameter]:
    """Freeze `unet`, add low-rank updates (A random from `seed`, B zero); return their float32 parameters by name."""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha or settings.rank,
        target_modules=resolve_targets(unet, settings.targets),
        lora_dropout=settings.dropout,
    )
    unet.requires_grad_(False)
    devices = sorted({p.device.index or 0 for p in unet.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        unet.add_adapter(config, adapter_name=_ADAPTER)
    parameters = {name: p for name, p in unet.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    return parameters


def to_kohya(state: dict[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Rename peft's tensors for kohya, ComfyUI and A1111, with `alpha` (not the rank) beside each pair.

    `down_blocks.1.(...).to_q.lora_A.weight` → `lora_unet_down_blocks_1_(...)_to_q.lora_down.weight`.
    """
    kohya: dict[str, Tensor] = {}
    for key, tensor in state.items():
        for ours, theirs in ((".lora_A.weight", "lora_down"), (".lora_B.weight", "lora_up")):
            if key.endswith(ours):
                layer = "lora_unet_" + key.removesuffix(ours).replace(".", "_")
                kohya[f"{layer}.{theirs}.weight"] = tensor
                kohya[f"{layer}.alpha"] = torch.tensor(float(alpha))
                break
        else:
            raise ModelError(f"LoRA tensor {key!r}: expected a name that ends in .lora_A.weight or .lora_B.weight")
    return kohya


def shape_mismatches(unet: UNet2DConditionModel, state: Mapping[str, Tensor]) -> list[str]:
    """Return a message for each A or B in `state` (diffusers' names, prefixed by `unet.`) that fits no layer of `unet`.

    Shapes: W [out, in, ...], A [rank, in, ...], B [out, rank, ...].
    """
    ours = {key.removeprefix("unet."): tensor for key, tensor in state.items() if key.startswith("unet.")}
    if not any(".lora_A." in key for key in ours):
        ours = convert_unet_state_dict_to_peft(ours)
    layers = dict(unet.named_modules())
    found = []
    for key, tensor in ours.items():
        for part, axis, side in ((".lora_A.", 1, "inputs"), (".lora_B.", 0, "outputs")):
            name, matched, _ = key.partition(part)
            if not matched or tensor.ndim < 2:
                continue
            weight = getattr(layers.get(name), "weight", None)
            if weight is None:
                found.append(f"there is no layer {name}")
            elif tensor.shape[axis] != weight.shape[axis]:
                found.append(f"{name} has {weight.shape[axis]} {side}, not {tensor.shape[axis]}")
    return found


class LoraModel(NamedWeights):
    """Trains low-rank updates of some of the U-Net's layers; the base is frozen.

    Args:
        pipeline: the updates are added to its U-Net in place; its precision is unchanged.
        settings: rank, alpha, targets, dropout.
        seed: of the updates' initialisation, which depends on nothing else.
        gradient_checkpointing: less memory, about a third more time.
    """

    def __init__(
        self,
        pipeline: StableDiffusionXLPipeline,
        settings: LoraSettings,
        seed: int,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self.settings = settings
        for part in (pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            part.requires_grad_(False)
        self._parameters = add_lora(pipeline.unet, settings, seed)
        pipeline.unet.train()
        if gradient_checkpointing:
            pipeline.unet.enable_gradient_checkpointing()

    def predict(self, batch: Batch, noisy_latents_bchw: Tensor, timesteps_b: Tensor) -> Tensor:
        """Return the U-Net's prediction, float32."""
        return predict_noise(self.pipeline, batch, noisy_latents_bchw, timesteps_b)

    def trained(self) -> dict[str, nn.Parameter]:
        """Return A and B of every target, in module order."""
        return self._parameters

    def save(self, folder: Path) -> None:
        """Write one file for diffusers and one for kohya, ComfyUI and A1111, each atomically.

        Raises:
            ModelError: a kohya key fits no layer of the U-Net (other programs ignore such keys silently).
        """
        unet = self.pipeline.unet
        state = {name: t.detach().cpu().contiguous() for name, t in get_peft_model_state_dict(unet).items()}
        kohya = to_kohya(state, self.settings.alpha or self.settings.rank)
        layers = {"lora_unet_" + name.replace(".", "_") for name, _ in unet.named_modules()}
        unknown = sorted(key for key in kohya if key.split(".")[0] not in layers)
        if unknown:
            raise ModelError(
                f"kohya file: {len(unknown)} of {len(kohya)} keys fit no layer of the U-Net: {unknown[:3]}"
            )
        metadata = unet.peft_config[_ADAPTER].to_dict()
        # peft stores a set, whose order differs between processes; equal LoRAs must give equal files
        metadata["target_modules"] = sorted(metadata["target_modules"])

        def write(partial: Path) -> None:
            StableDiffusionXLPipeline.save_lora_weights(
                partial.parent, unet_lora_layers=state, unet_lora_adapter_metadata=metadata, weight_name=partial.name
            )
            sort_header(partial)

        write_atomically(folder / DIFFUSERS_FILE, write)
        write_atomically(folder / KOHYA_FILE, lambda partial: save_file(kohya, partial, metadata={"format": "pt"}))


def sort_header(path: Path) -> None:
    """Sort the metadata in a safetensors header, which is written in random order; equal LoRAs must give equal files.

    File format: 8 bytes with the header's length (little-endian), the JSON header padded with spaces, the data.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= length, "sorting must not lengthen the header"
        file.seek(8)
        file.write(text.ljust(length))


def _matches(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end)
