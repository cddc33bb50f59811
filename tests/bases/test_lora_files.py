"""The LoRA file of every base: read by a plain pipeline of diffusers, with the names that ComfyUI knows."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fairhuman.bases.names import BASES
from fairhuman.models.locations import DIFFUSERS_FILE
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
