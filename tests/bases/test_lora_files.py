"""The LoRA file of every base: read by a plain pipeline of diffusers, with the names that ComfyUI knows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairhuman.bases.names import BASES
from fairhuman.errors import ModelError
from fairhuman.generate.lora import load_lora
from fairhuman.models.locations import DIFFUSERS_FILE
from fairhuman.models.lora_file import read_lora
from fairhuman.models.merge import MergeJob, merge
from fairhuman.models.sdxl import load_pipeline
from helpers.base_cases import WITHOUT, Case, make_case
from helpers.comfy_keys import COMFY_KEYS
from helpers.places import RECIPES


@pytest.fixture(params=[None, 2.0], ids=["alpha=rank", "alpha=2"])
def saved(case: Case, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Case, Path]:
    """A case whose LoRA is saved; rank 4."""
    trained = case if request.param is None else make_case(case.name, case.folder, alpha=request.param)
    trained.model.save(tmp_path)
    return trained, tmp_path / DIFFUSERS_FILE


def test_a_plain_pipeline_with_the_file_predicts_what_was_trained(saved: tuple[Case, Path]) -> None:
    trained, file = saved
    size = (trained.base.channels, *trained.grid)
    noisy, levels = torch.randn(2, *size, generator=torch.Generator().manual_seed(4)), torch.tensor([0.3, 0.8])
    plain = type(trained.base)(type(trained.base).kind.from_pretrained(trained.folder, **WITHOUT.get(trained.name, {})))
    texts = plain.texts(["a hat", "a man waving with both hands"])
    with torch.no_grad():
        expected = trained.base.predict(noisy, levels, texts)
        before = plain.predict(noisy, levels, texts)
        plain.pipeline.load_lora_weights(file.parent, weight_name=file.name)
        found = plain.predict(noisy, levels, texts)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(before, expected, atol=1e-3)


def test_every_key_is_a_layer_and_one_that_comfyui_reads_if_it_has_a_map(saved: tuple[Case, Path]) -> None:
    trained, file = saved
    state = load_file(file)
    layers = dict(trained.base.network.named_modules())
    for key, tensor in state.items():
        prefix, name, side = key.split(".", 1)[0], *key.removeprefix("transformer.").rsplit(".lora_", 1)
        assert prefix == "transformer"
        assert trained.name not in COMFY_KEYS or COMFY_KEYS[trained.name].fullmatch(name), name
        weight = layers[name].weight
        assert (tensor.shape[1] if side == "A.weight" else tensor.shape[0]) == weight.shape[
            1 if side == "A.weight" else 0
        ]
    assert len(state) == len(trained.parameters)


def test_comfyui_s_strength_is_the_trained_one(saved: tuple[Case, Path]) -> None:
    """Where a file has no `.alpha`, ComfyUI adds B A as it is; it doesn't read peft's settings."""
    trained, file = saved
    state = load_file(file)
    parameters = dict(trained.base.network.named_parameters())
    strength = trained.model.settings.strength
    for key in (key for key in state if key.endswith(".lora_A.weight")):
        name = key.removeprefix("transformer.").removesuffix(".lora_A.weight")
        down, up = (parameters[f"{name}.lora_{side}.default.weight"] for side in "AB")
        found = state[key.replace("lora_A", "lora_B")] @ state[key]
        assert torch.allclose(found, strength * (up @ down), rtol=1e-5, atol=1e-7)


def test_bases_whose_files_comfyui_does_not_read_are_named() -> None:
    page = (RECIPES.parent / "docs/bases.md").read_text()
    others = {base.place.partition(":")[0]: base.title for base in BASES.values() if base.flow}
    for title in (title for name, title in others.items() if name not in COMFY_KEYS):
        assert f"ComfyUI doesn't read that of {title}" in " ".join(page.split())


# Layers of the tiny bases by names that diffusers converts, with their inputs and outputs; FLUX.1's as kohya's.
OTHERS = {
    "flux": {
        "lora_unet_double_blocks_0_img_attn_qkv": (32, 96),
        "lora_unet_single_blocks_1_linear2": (160, 32),
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (32, 32),
        "lora_te1_text_model_encoder_layers_0_self_attn_out_proj": (32, 32),  # diffusers tells kohya's files by it
        "lora_te1_text_model_encoder_layers_1_mlp_fc1": (32, 64),
    },
    "flux2": {
        "diffusion_model.double_blocks.0.img_attn.qkv": (32, 96),
        "diffusion_model.single_blocks.1.linear2": (128, 32),
    },
    "z_image": {"lora_unet_layers_0_attention_to_q": (32, 32), "lora_unet_layers_1_feed_forward_w1": (32, 85)},
    "qwen_image": {
        "lora_unet_transformer_blocks_0_attn_to_q": (32, 32),
        "lora_unet_transformer_blocks_1_attn_to_k": (32, 32),
    },
}


def of_another_program(name: str, file: Path) -> Path:
    """A LoRA of rank 2 by names other than diffusers'."""
    generator, tensors = torch.Generator().manual_seed(5), {}
    down, up = ("lora_A", "lora_B") if name == "flux2" else ("lora_down", "lora_up")
    for layer, (inputs, outputs) in OTHERS[name].items():
        tensors[f"{layer}.{down}.weight"] = 0.3 * torch.randn(2, inputs, generator=generator)
        tensors[f"{layer}.{up}.weight"] = 0.3 * torch.randn(outputs, 2, generator=generator)
        if name != "flux2":
            tensors[f"{layer}.alpha"] = torch.tensor(1.0)
    save_file(tensors, file)
    return file


def weights(folder: Path) -> dict[str, Tensor]:
    return {
        f"{part} {name}": tensor
        for part in ("transformer", "text_encoder")
        for name, tensor in getattr(load_pipeline(str(folder)), part).state_dict().items()
    }


@pytest.mark.parametrize("name", OTHERS)
def test_merging_reads_what_sampling_reads(name: str, tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    file, folder = of_another_program(name, tmp_path / "lora.safetensors"), tiny_base(name)
    merge(MergeJob(str(folder), file, tmp_path / "merged", weight=0.7, precision="fp32"))
    drawn = load_pipeline(str(folder))
    load_lora(drawn, file, 0.7, fuse=True)
    before, merged = weights(folder), weights(tmp_path / "merged")
    changed = {key for key, tensor in merged.items() if not torch.equal(before[key], tensor)}
    assert len(changed) >= len(OTHERS[name])
    for key, tensor in merged.items():
        part, _, weight = key.partition(" ")
        assert torch.allclose(getattr(drawn, part).state_dict()[weight], tensor, atol=1e-6), key


def test_a_lora_s_text_encoder_is_fused_too(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    """FLUX.1's; diffusers leaves it out unless it is asked for."""
    file = of_another_program("flux", tmp_path / "lora.safetensors")
    plain, fused, beside = (load_pipeline(str(tiny_base("flux"))) for _ in range(3))
    load_lora(fused, file, 0.7, fuse=True)
    load_lora(beside, file, 0.7, fuse=False)
    tokens = torch.arange(8)[None]
    with torch.no_grad():
        before, ours, theirs = (one.text_encoder(tokens).last_hidden_state for one in (plain, fused, beside))
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(before, ours, atol=1e-3)


def test_names_that_nothing_reads_are_told(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    tensors = {"lora_unet_x.lora_down.weight": torch.ones(2, 4), "lora_unet_x.lora_up.weight": torch.ones(4, 2)}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match=r"1 of its layers .* lora_unet_x; it is for another model, or has names that"):
        read_lora(tmp_path / "lora.safetensors", load_pipeline(str(tiny_base("flux"))))
