import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from fairhuman.bases.base import base_of
from fairhuman.data.samples.batch import Batch
from fairhuman.errors import ModelError
from fairhuman.generate.lora import load_lora
from fairhuman.models.architecture import build_small, sdxl_unet_config
from fairhuman.models.lora import DIFFUSERS_FILE, KOHYA_FILE, LoraModel, add_lora
from fairhuman.models.lora_file import read_lora, to_kohya
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import LoraSettings
from helpers import warm

MakeBatch = Callable[[int], tuple[Batch, Tensor, Tensor]]
SETTINGS = [
    LoraSettings(rank=4, kohya_precision="fp32"),
    LoraSettings(rank=4, alpha=10.0, kohya_precision="fp32"),
    LoraSettings(rank=3, alpha=1.0, targets="attention+conv", kohya_precision="fp32"),
]
FIXED = ("time_embedding", "add_embedding")


def trained(settings: LoraSettings, dtype: torch.dtype = torch.float32) -> LoraModel:
    """A LoRA whose B isn't zero, as after training."""
    pipeline = build_small(0)
    pipeline.unet.to(dtype)
    model = LoraModel(pipeline, settings, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def predict(pipeline: StableDiffusionXLPipeline, inputs: tuple[Batch, Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        return base_of(pipeline).prediction(*inputs)


def kohya_layers(unet: UNet2DConditionModel) -> dict[str, str]:
    """Diffusers' names of layers by the name that kohya's scripts give them: of SDXL's original U-Net.

    diffusers converts the original layout's tensors, so its table, not ours, says which layer is which.
    """
    layers, depths = unet.config.layers_per_block, unet.config.transformer_layers_per_block
    originals = original_layers(layers, depths[1:])
    marks = {f"model.diffusion_model.{name}.weight": torch.full((1,), float(i)) for i, name in enumerate(originals)}
    fixed = ("time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2")
    marks |= {f"model.diffusion_model.{name}.weight": torch.zeros(1) for name in fixed}
    marks |= {name.replace(".weight", ".bias"): torch.zeros(1) for name in marks}
    converted = convert_ldm_unet_checkpoint(marks, dict(unet.config))
    weights = {name: mark for name, mark in converted.items() if name.endswith(".weight")}
    named = {int(mark): name.removesuffix(".weight") for name, mark in weights.items() if not name.startswith(FIXED)}
    there = {name for name, _ in unet.named_modules()}  # few blocks have a skip connection
    return {
        "lora_unet_" + name.replace(".", "_"): named[i] for i, name in enumerate(originals) if named.get(i) in there
    }


def original_layers(layers: int, depths: Sequence[int]) -> list[str]:
    """Linear layers and convolutions of the original U-Net, in the order of its constructor.

    Source: Stability AI's generative-models, `sgm/modules/diffusionmodules/openaimodel.py`, class UNetModel, and
    `sgm/modules/attention.py`, class SpatialTransformer; `depths` of the levels after the first, which has none.
    """

    def block(place: str, depth: int) -> list[str]:
        names = [f"{place}.0.{end}" for end in ("in_layers.2", "emb_layers.1", "out_layers.3", "skip_connection")]
        return names + (transformer(f"{place}.1", depth) if depth else [])

    def transformer(place: str, depth: int) -> list[str]:
        ends = [f"{one}.{end}" for one in ("attn1", "attn2") for end in ("to_q", "to_k", "to_v", "to_out.0")]
        ends += ["ff.net.0.proj", "ff.net.2"]
        inside = [f"{place}.transformer_blocks.{k}.{end}" for k in range(depth) for end in ends]
        return [f"{place}.proj_in", *inside, f"{place}.proj_out"]

    found, number, levels = ["input_blocks.0.0"], 1, [0, *depths]
    for level, depth in enumerate(levels):
        for _ in range(layers):
            found += block(f"input_blocks.{number}", depth)
            number += 1
        if level < len(levels) - 1:
            found.append(f"input_blocks.{number}.0.op")
            number += 1
    found += block("middle_block", levels[-1])
    found += [f"middle_block.2.{end}" for end in ("in_layers.2", "emb_layers.1", "out_layers.3")]
    number = 0
    for level, depth in reversed([*enumerate(levels)]):
        for layer in range(layers + 1):
            found += block(f"output_blocks.{number}", depth)
            if level and layer == layers:
                found.append(f"output_blocks.{number}.{2 if depth else 1}.conv")
            number += 1
    return [*found, "out.2"]


@pytest.mark.parametrize(
    ("rank", "millions"),
    [(64, 92.9), *(pytest.param(*one, marks=pytest.mark.slow) for one in ((128, 185.8), (256, 371.6)))],
)
def test_sdxl_attention_lora_has_the_papers_parameters(rank: int, millions: float) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sdxl_unet_config())
        parameters = add_lora(unet, LoraSettings(rank=rank), seed=0)
    count = sum(p.numel() for p in parameters.values())
    assert round(count / 1e6, 1) == millions
    keys = to_kohya({name.replace(".default", ""): p for name, p in parameters.items()}, alpha=rank)
    layers = kohya_layers(build_sdxl_on_meta())
    names = {key.split(".")[0] for key in keys}
    assert names <= layers.keys()
    assert len(names) == 560
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q" in names


def build_sdxl_on_meta() -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel(**sdxl_unet_config())


def test_trainable_parameters_is_a_list_that_can_be_read_twice() -> None:
    model = LoraModel(build_small(0), LoraSettings(rank=2), seed=0)
    parameters = model.trainable_parameters()
    assert isinstance(parameters, list)
    assert len(list(parameters)) == len(list(parameters)) > 0
    assert [id(p) for p in parameters] == [id(p) for p in model.trainable_parameters()]
    assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)


def test_gaussian_start_has_a_deviation_of_one_over_the_rank() -> None:
    kinds = {
        init: LoraModel(build_small(0), LoraSettings(rank=8, init=init), seed=1) for init in ("kaiming", "gaussian")
    }
    values = {
        init: torch.cat([p.detach().flatten() for p in model.trainable_parameters() if p.count_nonzero()])
        for init, model in kinds.items()
    }
    assert float(values["gaussian"].std()) == pytest.approx(1 / 8, rel=0.02)
    assert float(values["gaussian"].abs().max()) > 3 / 8
    assert float(values["kaiming"].abs().max()) < 3 / 8  # uniform, as peft's default


def test_start_depends_on_the_seed_alone_and_changes_nothing(make_batch: MakeBatch) -> None:
    inputs = make_batch(2)
    plain = predict(build_small(0), inputs)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first = LoraModel(build_small(0), LoraSettings(rank=4), seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second, other = (LoraModel(build_small(0), LoraSettings(rank=4), seed=seed) for seed in (1, 2))
    ours, same, differs = (list(m.trainable_state().values()) for m in (first, second, other))
    assert all(torch.equal(a, b) for a, b in zip(ours, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(ours, differs, strict=True))
    assert torch.equal(predict(first.pipeline, inputs), plain)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_base_in_half_precision_is_trained_in_float32(make_batch: MakeBatch, dtype: torch.dtype) -> None:
    model = trained(LoraSettings(rank=2), dtype)
    assert model.pipeline.unet.conv_in.weight.dtype == dtype
    prediction = model.predict(*make_batch(2))
    prediction.square().mean().backward()
    assert prediction.dtype == torch.float32
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.trainable_parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.trainable_parameters())
    assert model.pipeline.unet.conv_in.weight.grad is None


def test_gradient_checkpointing_changes_no_gradient(make_batch: MakeBatch) -> None:
    found = []
    for checkpointing in (False, True):
        model = LoraModel(build_small(0), LoraSettings(rank=2), seed=0, gradient_checkpointing=checkpointing)
        assert model.pipeline.unet.is_gradient_checkpointing is checkpointing
        loss = model.predict(*make_batch(2)).square().mean()
        found.append(torch.autograd.grad(loss, model.trainable_parameters()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)
    assert any(gradient.abs().max() > 0 for gradient in found[0])


@pytest.mark.parametrize(
    "settings", [one.model_copy(update={"alpha": one.rank * 0.5**k}) for k, one in enumerate(SETTINGS)]
)
def test_diffusers_file_gives_the_trained_model(make_batch: MakeBatch, tmp_path: Path, settings: LoraSettings) -> None:
    inputs, model = make_batch(2), trained(settings)
    expected = predict(model.pipeline, inputs)
    model.save(tmp_path)
    pipeline = build_small(0)
    plain = predict(pipeline, inputs)
    pipeline.load_lora_weights(tmp_path, weight_name=DIFFUSERS_FILE)
    found = predict(pipeline, inputs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert (expected - plain).abs().max() > 1e-2
    assert sorted(path.name for path in tmp_path.iterdir()) == [DIFFUSERS_FILE, KOHYA_FILE]


@pytest.mark.parametrize("settings", SETTINGS)
def test_kohya_keys_map_to_layers_and_give_the_same_output(
    make_batch: MakeBatch, tmp_path: Path, settings: LoraSettings
) -> None:
    inputs, model = make_batch(2), trained(settings)
    expected = predict(model.pipeline, inputs)
    model.save(tmp_path)
    tensors = {name: tensor.float() for name, tensor in load_file(tmp_path / KOHYA_FILE).items()}
    pipeline = build_small(0)
    layers = {name: pipeline.unet.get_submodule(ours) for name, ours in kohya_layers(pipeline.unet).items()}
    assert {key.split(".", 1)[1] for key in tensors} == {"lora_down.weight", "lora_up.weight", "alpha"}
    names = {key.split(".")[0] for key in tensors}
    assert names <= layers.keys()
    assert len(tensors) == 3 * len(names) == 3 * len(model.trainable_parameters()) / 2
    with torch.no_grad():
        for name in names:
            down, up = tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"]
            weight = layers[name].weight
            assert down.shape[1:] == weight.shape[1:]
            assert down.shape[0] == up.shape[1] == settings.rank
            update = (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
            weight += tensors[f"{name}.alpha"] / settings.rank * update
    torch.testing.assert_close(predict(pipeline, inputs), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_diffusers_reads_the_kohya_file(make_batch: MakeBatch, tmp_path: Path, settings: LoraSettings) -> None:
    inputs, model = make_batch(2), trained(settings)
    expected = predict(model.pipeline, inputs)
    model.save(tmp_path)
    pipeline = build_small(0)
    pipeline.load_lora_weights(tmp_path, weight_name=KOHYA_FILE)
    torch.testing.assert_close(predict(pipeline, inputs), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS[1:])
def test_fused_equals_unfused_and_unfusing_restores(
    make_batch: MakeBatch, tmp_path: Path, settings: LoraSettings
) -> None:
    inputs = make_batch(2)
    trained(settings).save(tmp_path)
    pipeline = build_small(0)
    before = {name: p.clone() for name, p in pipeline.unet.state_dict().items()}
    pipeline.load_lora_weights(tmp_path, weight_name=DIFFUSERS_FILE)
    unfused = predict(pipeline, inputs)
    pipeline.fuse_lora()
    torch.testing.assert_close(predict(pipeline, inputs), unfused, rtol=0, atol=1e-4)
    pipeline.unfuse_lora()
    pipeline.unload_lora_weights()
    for name, parameter in pipeline.unet.state_dict().items():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=1e-6)


def test_state_goes_back_exactly(make_batch: MakeBatch) -> None:
    model, fresh = trained(LoraSettings(rank=2)), LoraModel(build_small(0), LoraSettings(rank=2), seed=7)
    fresh.load_trainable_state(model.trainable_state())
    assert torch.equal(predict(fresh.pipeline, make_batch(2)), predict(model.pipeline, make_batch(2)))


def test_targets_by_name_and_by_group() -> None:
    def layers(targets: str | list[str]) -> set[str]:
        parameters = add_lora(build_small(0).unet, LoraSettings(rank=1, targets=targets), seed=0)
        return {name.split(".lora_")[0] for name in parameters}

    attention, both = layers("attention"), layers("attention+conv")
    assert attention < both
    assert {name.rsplit(".", 1)[1] for name in both - attention} == {"conv1", "conv2"}
    assert layers(["mid_block.attentions.0.proj_in"]) == {"mid_block.attentions.0.proj_in"}


@pytest.mark.parametrize("targets", [[], ["to_q", "to_nowhere"]])
def test_targets_without_a_layer_are_named(targets: list[str]) -> None:
    wrong = "to_nowhere" if targets else "an empty list"
    with pytest.raises(ModelError, match=rf"lora.targets.*nothing matches .*{wrong}.*for example conv_in"):
        add_lora(build_small(0).unet, LoraSettings(targets=targets), seed=0)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"target": "attention"}])
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        LoraSettings(**wrong)


def test_equal_loras_are_equal_files_in_every_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from fairhuman.models.architecture import build_small; "
        "from fairhuman.models.lora import LoraModel, LoraSettings; "
        "LoraModel(build_small(0), LoraSettings(rank=2, alpha=3.0), seed=0).save(Path(sys.argv[1])); "
        "print(hash('a name'))"
    )
    done = warm.run([sys.executable, "-c", code, tmp_path / "there"], check=True)
    assert int(done.stdout) != hash("a name"), "sets have other orders there"
    LoraModel(build_small(0), LoraSettings(rank=2, alpha=3.0), seed=0).save(tmp_path / "here")
    for name in (DIFFUSERS_FILE, KOHYA_FILE):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


@pytest.mark.parametrize("name", [DIFFUSERS_FILE, KOHYA_FILE])
def test_layers_that_a_unet_lacks_are_reported_for_both_files(tmp_path: Path, name: str) -> None:
    shallow, deep, trained_one = (build_small(0) for _ in range(3))
    for one in (deep, trained_one):
        one.unet = UNet2DConditionModel.from_config({**one.unet.config, "transformer_layers_per_block": (1, 1, 2)})
    model = LoraModel(trained_one, LoraSettings(rank=3, targets="attention+conv"), seed=1)
    model.save(tmp_path)
    assert len(read_lora(tmp_path / name, deep)["unet"]) == len(model.trainable_parameters()) / 2
    with pytest.raises(ModelError, match=r"\d+ of its layers aren't in this model, such as .*transformer_blocks.1."):
        read_lora(tmp_path / name, shallow)


def test_mismatches_of_a_transformer_are_named(tmp_path: Path) -> None:
    pipeline = load_pipeline("small-flow-untrained")
    LoraModel(pipeline, LoraSettings(rank=3), seed=1).save(tmp_path)
    config = pipeline.transformer.config
    cases = {
        "num_layers": (config.num_layers - 1, r"there is no layer transformer_blocks\.\d"),
        "num_attention_heads": (config.num_attention_heads + 1, r"has \d+ inputs, not \d+"),
    }
    for key, (value, message) in cases.items():
        pipeline.transformer = type(pipeline.transformer).from_config({**config, key: value})
        with pytest.raises(ModelError, match=rf"one for this transformer, but \d+ of its \d+ tensors.*{message}"):
            load_lora(pipeline, tmp_path)
