"""LoRA files of other programs: what they read of ours, what we read of theirs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairhuman.errors import ModelError, RecipeError
from fairhuman.generate.lora import find_lora, load_lora
from fairhuman.models.architecture import build_small
from fairhuman.models.lora import DIFFUSERS_FILE, KOHYA_FILE, LoraModel
from fairhuman.models.lora_file import LoraLayer, read_lora
from fairhuman.models.merge import MergeJob, merge, stored_dtype
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import BaseSettings, LoraSettings
from fairhuman.models.single_file import save_single_file
from helpers.lora_readers import a1111, comfyui, kohya

SETTINGS = [
    LoraSettings(rank=4, alpha=10.0, kohya_precision="fp32"),
    LoraSettings(rank=3, alpha=1.0, targets="attention+conv", kohya_precision="fp32"),
]


def changed(model: LoraModel) -> LoraModel:
    """The LoRA with B that isn't zero, as after training."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def trained(settings: LoraSettings) -> LoraModel:
    return changed(LoraModel(load_pipeline("small"), settings, seed=1))


def fused(model: LoraModel) -> dict[str, Tensor]:
    """Weights of the U-Net with the update, as peft computes it."""
    model.pipeline.fuse_lora()
    state = {
        name.replace(".base_layer", ""): tensor.clone()
        for name, tensor in model.pipeline.unet.state_dict().items()
        if ".lora_" not in name
    }
    model.pipeline.unfuse_lora()
    return state


@pytest.mark.parametrize("program", [comfyui, a1111, kohya])
@pytest.mark.parametrize("settings", SETTINGS, ids=["attention", "convolutions"])
def test_every_program_finds_every_layer_and_gets_the_same_weights(
    tmp_path: Path, program: Any, settings: LoraSettings
) -> None:
    model = trained(settings)
    model.save(tmp_path / "lora")
    tensors = load_file(tmp_path / "lora" / KOHYA_FILE)
    save_single_file(load_pipeline("small"), tmp_path / "base.safetensors", torch.float32)
    base = load_file(tmp_path / "base.safetensors")
    found = program(tensors, base)
    assert len(found) == len(tensors) / 3 == len(model.trainable_parameters()) / 2
    for name, key in found.items():
        down, up, weight = tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"], base[name]
        scale = tensors[f"{key}.alpha"].item() / down.shape[0]
        if weight.ndim == 4:
            update = torch.nn.functional.conv2d(down.permute(1, 0, 2, 3), up).permute(1, 0, 2, 3)
        else:
            update = up @ down
        base[name] = weight + scale * update
    save_file(base, tmp_path / "merged.safetensors")
    expected = fused(model)
    merged = load_pipeline(str(tmp_path / "merged.safetensors")).unet.state_dict()
    assert expected.keys() == merged.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor, rtol=1e-5, atol=1e-6)


def test_metadata_says_what_the_file_is_for(tmp_path: Path) -> None:
    trained(SETTINGS[1]).save(tmp_path)
    with safe_open(tmp_path / KOHYA_FILE, "pt") as file:
        found = file.metadata()
    assert found["ss_base_model_version"].startswith("sdxl_")  # A1111, Lora/network.py, detect_version
    expected = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "3",
        "ss_network_alpha": "1",
        "ss_network_args": '{"conv_dim": "3", "conv_alpha": "1"}',
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.prediction_type": "epsilon",
        "modelspec.title": "LoRA",
        "modelspec.resolution": "1024x1024",
    }
    assert expected.items() <= found.items()
    velocity = load_pipeline("small", base=BaseSettings(prediction="v", zero_snr=True))
    LoraModel(velocity, LoraSettings(rank=1, title="Maria"), seed=0, size=(96, 64)).save(tmp_path / "v")
    with safe_open(tmp_path / "v" / KOHYA_FILE, "pt") as file:
        found = file.metadata()
    assert (found["modelspec.prediction_type"], found["ss_zero_terminal_snr"]) == ("v", "True")
    assert (found["modelspec.title"], found["modelspec.resolution"]) == ("Maria", "64x96")
    assert "ss_network_args" not in found


@pytest.mark.parametrize(
    ("precision", "dtype"), [(None, torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_precision_of_the_file(tmp_path: Path, precision: str | None, dtype: torch.dtype) -> None:
    chosen = {} if precision is None else {"kohya_precision": precision}
    trained(LoraSettings(rank=2, **chosen)).save(tmp_path)  # type: ignore[arg-type]
    assert {tensor.dtype for tensor in load_file(tmp_path / KOHYA_FILE).values()} == {dtype}
    assert {tensor.dtype for tensor in load_file(tmp_path / DIFFUSERS_FILE).values()} == {torch.float32}


def test_values_too_large_for_fp16_are_named(tmp_path: Path) -> None:
    model = trained(LoraSettings(rank=2))
    with torch.no_grad():
        model.trainable_parameters()[0].fill_(1e6)
    with pytest.raises(
        ModelError,
        match=r"kohya file: 1 of .* don't fit into fp16, .*the same command again with lora.kohya_precision=bf16",
    ):
        model.save(tmp_path)


def as_earlier(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """The file for kohya as fairhuman wrote it before: diffusers' names of layers, no metadata of its own."""
    earlier = {}
    for key, tensor in tensors.items():
        layer, _, part = key.removeprefix("unet.").partition(".lora_")
        theirs = {"A.weight": "lora_down.weight", "B.weight": "lora_up.weight"}[part]
        name = "lora_unet_" + layer.replace(".", "_")
        unscaled = tensor / (10.0 / 4.0) if ".lora_B." in key else tensor
        earlier |= {f"{name}.{theirs}": unscaled, f"{name}.alpha": torch.tensor(10.0)}
    save_file(earlier, path, metadata={"format": "pt"})
    return path


def as_old_diffusers(tensors: Mapping[str, Tensor], path: Path) -> Path:
    """Names of diffusers before peft: `.processor.to_q_lora.down.weight`; without alpha, so B is scaled."""
    old = {}
    for key, tensor in tensors.items():
        name = key.replace(".to_out.0.", ".to_out.").replace(".to_", ".processor.to_")
        old[name.replace(".lora_A.", "_lora.down.").replace(".lora_B.", "_lora.up.")] = tensor
    save_file(old, path)
    return path


def files(model: LoraModel, folder: Path) -> dict[str, Path]:
    model.save(folder)
    tensors = load_file(folder / DIFFUSERS_FILE)
    return {
        "diffusers": folder / DIFFUSERS_FILE,
        "kohya": folder / KOHYA_FILE,
        "earlier": as_earlier(tensors, folder / "earlier.safetensors"),
        "old": as_old_diffusers(tensors, folder / "old.safetensors"),
    }


def test_all_layouts_are_read_as_the_same_updates(tmp_path: Path) -> None:
    model = trained(SETTINGS[0])
    plain = load_pipeline("small").unet.state_dict()
    expected = {name: tensor - plain[name] for name, tensor in fused(model).items()}
    for layout, file in files(model, tmp_path).items():
        [(network, layers)] = read_lora(file, load_pipeline("small")).items()
        assert network == "unet"
        assert len(layers) == len(model.trainable_parameters()) / 2, layout
        for name, layer in layers.items():
            wanted = expected[f"{name}.weight"]
            torch.testing.assert_close(layer.update(wanted.shape), wanted, rtol=1e-4, atol=1e-6)


def test_the_file_for_diffusers_has_the_same_strength_without_its_metadata(tmp_path: Path) -> None:
    files(trained(SETTINGS[0]), tmp_path)
    save_file(load_file(tmp_path / DIFFUSERS_FILE), tmp_path / "bare.safetensors")
    with safe_open(tmp_path / DIFFUSERS_FILE, "pt") as file:
        assert json.loads(file.metadata()["lora_adapter_metadata"])["unet.lora_alpha"] == 4
    expected, found = (
        read_lora(tmp_path / name, load_pipeline("small"))["unet"] for name in (KOHYA_FILE, "bare.safetensors")
    )
    for name, layer in expected.items():
        shape = torch.Size([len(layer.up), layer.down.shape[1]])
        torch.testing.assert_close(found[name].update(shape), layer.update(shape), rtol=1e-5, atol=1e-6)


def test_a_file_with_alpha_in_its_metadata_alone_is_read(tmp_path: Path) -> None:
    """As earlier versions wrote it, and peft does."""
    files(trained(SETTINGS[0]), tmp_path)
    tensors, stated = load_file(tmp_path / DIFFUSERS_FILE), {"unet.lora_alpha": 10.0}
    unscaled = {name: tensor / 2.5 if ".lora_B." in name else tensor for name, tensor in tensors.items()}
    save_file(unscaled, tmp_path / "earlier.safetensors", {"lora_adapter_metadata": json.dumps(stated)})
    found = []
    for name in (DIFFUSERS_FILE, "earlier.safetensors"):
        pipeline = load_pipeline("small")
        load_lora(pipeline, tmp_path / name)
        found.append(pipeline.unet.state_dict())
    assert all(torch.allclose(found[0][name], tensor, atol=1e-6) for name, tensor in found[1].items())


def test_rs_lora_is_read_as_diffusers_reads_it(tmp_path: Path) -> None:
    """Its factor is alpha / √rank."""
    settings = LoraConfig(r=4, lora_alpha=3, use_rslora=True, init_lora_weights=False, target_modules=["to_q"])
    pipeline, drawn = load_pipeline("small"), load_pipeline("small")
    plain = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    pipeline.unet.add_adapter(settings)
    layers, stated = get_peft_model_state_dict(pipeline.unet), settings.to_dict()
    pipeline.save_lora_weights(tmp_path, layers, unet_lora_adapter_metadata=stated)
    drawn.load_lora_weights(tmp_path)
    drawn.fuse_lora()
    found = read_lora(tmp_path / DIFFUSERS_FILE, load_pipeline("small"))["unet"]
    assert len(found) == len(layers) / 2
    for name, layer in found.items():
        weight = drawn.unet.get_submodule(name).base_layer.weight
        torch.testing.assert_close(plain[f"{name}.weight"] + layer.update(weight.shape), weight)


def test_sampling_reads_todays_and_earlier_files_alike(tmp_path: Path) -> None:
    found = []
    for layout in ("diffusers", "kohya", "earlier"):
        pipeline = load_pipeline("small")
        load_lora(pipeline, files(trained(SETTINGS[0]), tmp_path)[layout], 0.7)
        found.append(pipeline.unet.state_dict())
    for state in found[1:]:
        assert all(torch.allclose(found[0][name], tensor, atol=1e-6) for name, tensor in state.items())


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "earlier", "old"])
def test_training_starts_from_a_file(tmp_path: Path, layout: str) -> None:
    file = files(trained(SETTINGS[0]), tmp_path)[layout]
    started = LoraModel(load_pipeline("small"), LoraSettings(rank=4, alpha=2.0, start=file), seed=9)
    expected, found = fused(trained(SETTINGS[0])), fused(started)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    assert all(parameter.requires_grad for parameter in started.trainable_parameters())


def test_a_start_with_the_same_scale_is_exact(tmp_path: Path) -> None:
    """Of a power of two, which scales B without rounding."""
    settings = SETTINGS[1].model_copy(update={"alpha": 1.5})
    model = trained(settings)
    model.save(tmp_path)
    started = LoraModel(load_pipeline("small"), settings.model_copy(update={"start": tmp_path}), seed=9)
    expected, found = model.trainable_state(), started.trainable_state()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 8}, r"has rank 4, but lora\.rank is 8; set lora\.rank=4"),
        (
            {"rank": 4, "targets": "attention+conv"},
            r"has 56 layers, but lora\.targets=attention\+conv are \d+: \d+ are ",
        ),
        ({"rank": 4, "targets": ["to_q"]}, r"has 56 layers, but .*are 14: 42 are in the file alone, such as .*to_k"),
    ],
)
def test_a_start_that_does_not_fit_names_both(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    trained(SETTINGS[0]).save(tmp_path)
    with pytest.raises(ModelError, match=rf"lora\.start .*{message}"):
        LoraModel(load_pipeline("small"), LoraSettings(start=tmp_path, **settings), seed=0)


def test_a_start_that_changes_a_text_encoder_or_is_of_another_kind_is_named(tmp_path: Path) -> None:
    tensors = load_file(files(trained(SETTINGS[0]), tmp_path)["kohya"])
    text = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj"
    more = {f"{text}.lora_down.weight": torch.zeros(4, 64), f"{text}.lora_up.weight": torch.zeros(64, 4)}
    first = next(iter(tensors)).split(".")[0]
    cases = {
        "text.safetensors": (more, "changes 1 layers of text_encoder too"),
        "dora.safetensors": ({f"{first}.dora_scale": torch.zeros(4)}, "is a DoRA"),
        "loha.safetensors": ({f"{first}.hada_w1_a": torch.zeros(4, 4)}, "is a LoHa"),
        "other.safetensors": ({"lora_unet_x.lora_down.weight": torch.zeros(4, 4)}, "no partner"),
    }
    for name, (extra, message) in cases.items():
        save_file({**tensors, **extra}, tmp_path / name)
        with pytest.raises(ModelError, match=message):
            LoraModel(load_pipeline("small"), LoraSettings(rank=4, start=tmp_path / name), seed=0)
    with pytest.raises(ModelError, match=r"lora\.start .*expected a file or a folder"):
        LoraModel(load_pipeline("small"), LoraSettings(rank=4, start=tmp_path / "none"), seed=0)


@pytest.mark.parametrize(("layout", "value"), [("diffusers", float("nan")), ("kohya", float("inf"))])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, layout: str, value: float) -> None:
    file = files(trained(SETTINGS[0]), tmp_path)[layout]
    tensors = load_file(file)
    key = next(key for key in tensors if ".lora_up." in key or ".lora_B." in key)
    tensors[key][0, 0] = value
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file(tensors, file, metadata)
    message = rf"{file.name}': every weight must be a finite number, but the tensor .*lora.(up|B)\.\S* holds NaN"
    with pytest.raises(ModelError, match=message):
        load_lora(load_pipeline("small"), file)
    with pytest.raises(ModelError, match=message):
        LoraModel(load_pipeline("small"), LoraSettings(rank=4, start=file), seed=0)


def test_whatever_loading_raises_is_one_line(tmp_path: Path) -> None:
    pipeline, odd = load_pipeline("small"), tmp_path / "odd.safetensors"
    for tensors in (
        {"lora_unet_x.lora_down.weight": torch.zeros(4, 4)},
        {"unet.x.lora_A.weight": torch.tensor(1.0)},
        {"unet.x.lora_B.weight": torch.zeros(0, 0)},
    ):
        save_file(tensors, odd)
        with pytest.raises(ModelError, match=r"^LoRA '.*odd\.safetensors': expected ") as found:
            load_lora(pipeline, odd)
        assert "\n" not in str(found.value)


def test_broken_tensors_and_alphas_are_one_line(tmp_path: Path) -> None:
    model, pipeline = trained(SETTINGS[0]), load_pipeline("small")
    kohya = load_file(files(model, tmp_path)["kohya"])
    layer = next(iter(kohya)).split(".")[0]
    down, up = kohya[f"{layer}.lora_down.weight"], kohya[f"{layer}.lora_up.weight"]
    name = next(iter(load_file(tmp_path / DIFFUSERS_FILE))).split(".lora_")[0]
    pair = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    stated = [
        {"unet.lora_alpha": 5, "unet.alpha_pattern": 5},
        {"unet.lora_alpha": "x"},
        {"unet.lora_alpha": 1e999},
        [5],
    ]
    cases: list[tuple[dict[str, Tensor], dict[str, str], str]] = [
        ({f"{layer}.alpha": torch.ones(3)}, {}, "alpha must be a finite number"),
        ({f"{layer}.lora_down.weight": torch.tensor(1.0)}, {}, r"A must be a matrix, found the shape \[\]"),
        ({f"{layer}.lora_up.weight": torch.ones(4)}, {}, r"B must be a matrix, found the shape \[4\]"),
        ({f"{layer}.lora_down.weight": down[:0], f"{layer}.lora_up.weight": up[:, :0]}, {}, r"found the shape \[0, "),
        *(({}, {"lora_adapter_metadata": json.dumps(one)}, "alpha must be a finite number") for one in stated),
        ({}, {"lora_adapter_metadata": "{"}, "alpha must be a finite number"),
    ]
    for tensors, metadata, message in cases:
        save_file({**(pair if metadata else kohya), **tensors}, tmp_path / "odd.safetensors", metadata)
        with pytest.raises(ModelError, match=rf"odd\.safetensors': unet .*{message}") as found:
            read_lora(tmp_path / "odd.safetensors", pipeline)
        assert "\n" not in str(found.value)


def test_other_files_given_as_lora_are_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    save_single_file(load_pipeline("small"), whole, torch.float16)
    with pytest.raises(ModelError, match=r"found a whole checkpoint: give it as --model"):
        find_lora(whole)
    content = whole.read_bytes()
    whole.write_bytes(content[:-10])
    with pytest.raises(ModelError, match="the file is cut off"):
        find_lora(whole)


@pytest.mark.parametrize("name", ["lora.bin", "lora.pt", "lora.SAFETENSORS", "lora"])
def test_a_lora_that_may_run_code_is_refused_unopened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"a pickle")
    with pytest.raises(ModelError, match=rf"{name}': must be a .safetensors file, because others may run code"):
        find_lora(tmp_path / name)


def updates(pipeline: StableDiffusionXLPipeline, model: LoraModel, tmp_path: Path) -> Mapping[str, LoraLayer]:
    model.save(tmp_path / "lora")
    return read_lora(tmp_path / "lora" / DIFFUSERS_FILE, pipeline)["unet"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["merged.safetensors", "merged"])
def test_merge_adds_in_float32_and_rounds_once(tmp_path: Path, name: str, precision: str) -> None:
    pipeline = load_pipeline("small")
    layers = updates(pipeline, trained(SETTINGS[1]), tmp_path)
    job = MergeJob("small", tmp_path / "lora", tmp_path / name, weight=0.3, precision=precision)
    assert merge(job) == {"unet": len(layers)}
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    found = load_pipeline(str(tmp_path / name)).unet.state_dict()
    for key, weight in pipeline.unet.state_dict().items():
        layer = layers.get(key.removesuffix(".weight"))
        exact = weight.float() if layer is None else weight + 0.3 * layer.update(weight.shape)
        torch.testing.assert_close(found[key], exact.to(dtype).float(), rtol=0, atol=0)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["lora", name]


def test_merge_refuses_what_exists_and_what_does_not_fit(tmp_path: Path) -> None:
    trained(SETTINGS[0]).save(tmp_path / "lora")
    (tmp_path / "there").mkdir()
    with pytest.raises(Exception, match="there: exists already"):
        merge(MergeJob("small", tmp_path / "lora", tmp_path / "there"))
    with pytest.raises(Exception, match=r"new\.ckpt: give a name with \.safetensors"):
        merge(MergeJob("small", tmp_path / "lora", tmp_path / "new.ckpt"))
    with pytest.raises(Exception, match="finite number, found nan"):
        merge(MergeJob("small", tmp_path / "lora", tmp_path / "new", weight=float("nan")))
    with pytest.raises(
        ModelError, match=r"lora is a LoRA: give the model first, as in `fairhuman merge small \S+lora "
    ):
        merge(MergeJob(str(tmp_path / "lora"), Path("small"), tmp_path / "new"))
    with pytest.raises(ModelError, match="too large for"):
        merge(MergeJob("small", tmp_path / "lora", tmp_path / "new", weight=1e9))
    assert not (tmp_path / "new").exists()
    tensors = load_file(tmp_path / "lora" / DIFFUSERS_FILE)
    save_file({key.replace("up_blocks.1", "up_blocks.7"): t for key, t in tensors.items()}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"layers aren't in this model, such as unet\.up_blocks\.7.*another model"):
        merge(MergeJob("small", tmp_path / "x.safetensors", tmp_path / "new"))
    wide = {key: torch.cat([t, t]) if ".lora_B." in key else t for key, t in tensors.items()}
    save_file(wide, tmp_path / "wide.safetensors")
    with pytest.raises(ModelError, match=r"unet .*: is for a weight of \[\d+, \d+\], this model's is"):
        merge(MergeJob("small", tmp_path / "wide.safetensors", tmp_path / "new"))


def test_a_flow_base_is_merged_in_bf16_and_every_weight_is_checked(tmp_path: Path) -> None:
    changed(LoraModel(load_pipeline("small-flow"), LoraSettings(rank=2), seed=0)).save(tmp_path / "lora")
    out = tmp_path / "merged"
    merge(MergeJob("small-flow", tmp_path / "lora", out))
    assert {t.dtype for file in out.rglob("*.safetensors") for t in load_file(file).values()} == {torch.bfloat16}
    with pytest.raises(RecipeError, match=r"--precision fp16: the text encoders of .* overflow in fp16; use bf16"):
        merge(MergeJob("small-flow", tmp_path / "lora", tmp_path / "half", precision="fp16"))
    sdxl = load_pipeline("small")
    sdxl.text_encoder.state_dict()["encoder.layers.0.mlp.fc1.weight"][0, 0] = 1e5
    sdxl.save_pretrained(tmp_path / "large")
    changed(LoraModel(sdxl, LoraSettings(rank=2), seed=0)).save(tmp_path / "sdxl")
    with pytest.raises(ModelError, match=r"CLIPTextModel .*fc1\.weight: a weight is too large for torch\.float16"):
        merge(MergeJob(str(tmp_path / "large"), tmp_path / "sdxl", tmp_path / "half"))
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("single", [False, True])
def test_weights_that_are_stored_finer_than_the_network_are_merged_exactly(tmp_path: Path, single: bool) -> None:
    place, written = str(tmp_path / ("x.safetensors" if single else "folder")), {}
    pipeline = load_pipeline("small")
    generator = torch.Generator().manual_seed(4)
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        for name, tensor in encoder.state_dict().items():
            if tensor.is_floating_point():
                tensor.add_(1e-5 * torch.randn(tensor.shape, generator=generator))
            written[f"{type(encoder).__name__} {name}"] = tensor.clone()
    trained(SETTINGS[0]).save(tmp_path / "lora")
    if single:
        save_single_file(pipeline, Path(place), torch.float32)
        tensors = load_file(place)
        save_file({n: t.half() if n.startswith("model.diffusion_model.") else t for n, t in tensors.items()}, place)
    else:
        pipeline.unet.half()
        pipeline.save_pretrained(place)
    assert stored_dtype(place) == torch.float32
    merge(MergeJob(place, tmp_path / "lora", tmp_path / "merged", precision="fp32"))
    merged = load_pipeline(str(tmp_path / "merged"))
    for encoder in (merged.text_encoder, merged.text_encoder_2):
        for name, tensor in encoder.state_dict().items():
            assert torch.equal(written[f"{type(encoder).__name__} {name}"], tensor)


def test_a_model_of_one_precision_is_merged_from_it(tmp_path: Path) -> None:
    load_pipeline("small", dtype=torch.bfloat16).save_pretrained(tmp_path / "folder")
    save_single_file(load_pipeline("small"), tmp_path / "x.safetensors", torch.float16)
    found = {
        place: stored_dtype(place) for place in ("small", str(tmp_path / "folder"), str(tmp_path / "x.safetensors"))
    }
    assert list(found.values()) == [torch.float16, torch.bfloat16, torch.float16]
    assert [stored_dtype(name) for name in ("small-untrained", "owner/name")] == [torch.float32] * 2


def test_a_text_encoders_layers_are_merged_too(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    down, up = torch.randn(2, 64, generator=generator), torch.randn(64, 2, generator=generator)
    tensors = {}
    for number in (1, 2):
        name = f"lora_te{number}_text_model_encoder_layers_1_self_attn_v_proj"
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_up.weight"] = down.clone(), up.clone()
        tensors[f"{name}.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "lora.safetensors")
    out = tmp_path / "out.safetensors"
    job = MergeJob("small", tmp_path / "lora.safetensors", out, precision="fp32")
    assert merge(job) == {"text_encoder": 1, "text_encoder_2": 1}
    before, after = load_pipeline("small"), load_pipeline(str(out))
    for ours, theirs in (
        (before.text_encoder, after.text_encoder),
        (before.text_encoder_2.text_model, after.text_encoder_2.text_model),
    ):
        expected, found = (one.encoder.layers[1].self_attn.v_proj.weight for one in (ours, theirs))
        torch.testing.assert_close(found, expected + 0.5 * up @ down)
        assert torch.equal(*(one.encoder.layers[1].self_attn.q_proj.weight for one in (ours, theirs)))


def kohya_pair(name: str, layer: torch.nn.Module, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    outputs, *inputs = layer.weight.shape
    ones = [1] * len(inputs[1:])
    return {
        f"{name}.lora_down.weight": torch.randn(rank, *inputs, generator=generator) * 0.1,
        f"{name}.lora_up.weight": torch.randn(outputs, rank, *ones, generator=generator) * 0.1,
        f"{name}.alpha": torch.tensor(1.0),
    }


@pytest.mark.parametrize("only_text", [False, True])
def test_sampling_and_merging_read_every_layer_of_kohyas_file(tmp_path: Path, only_text: bool) -> None:
    """Text encoders without out_proj, and ranks that differ: diffusers alone would drop the text encoders' layers."""
    plain, generator, tensors = load_pipeline("small"), torch.Generator().manual_seed(3), {}
    for prefix, network in (("lora_te1_", plain.text_encoder), ("lora_te2_", plain.text_encoder_2)):
        for name, module in network.named_modules():
            if name.endswith(("q_proj", "k_proj", "v_proj")):
                full = f"text_model.{name.removeprefix('text_model.')}".replace(".", "_")
                tensors |= kohya_pair(prefix + full, module, 2, generator)
    if not only_text:
        for name, module in plain.unet.named_modules():
            if name.endswith(("to_q", "conv1")):
                rank = 4 if name.endswith("conv1") else 2
                tensors |= kohya_pair(f"lora_unet_{name.replace('.', '_')}", module, rank, generator)
    file = tmp_path / "lora.safetensors"
    save_file(tensors, file)
    merge(MergeJob("small", file, tmp_path / "merged", weight=0.7, precision="fp32"))
    drawn, merged = load_pipeline("small"), load_pipeline(str(tmp_path / "merged"))
    load_lora(drawn, file, 0.7, fuse=True)
    changes = 0
    for part in ("unet", "text_encoder", "text_encoder_2"):
        before, ours, theirs = (getattr(one, part).state_dict() for one in (plain, drawn, merged))
        for name, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-6)
            changes += not torch.equal(tensor, before[name])
    assert changes == len(tensors) / 3


@pytest.mark.parametrize("mark", ["dora_scale", "lora_magnitude_vector"])
def test_a_dora_is_refused_before_it_is_drawn_as_a_plain_lora(tmp_path: Path, mark: str) -> None:
    tensors = load_file(files(trained(SETTINGS[0]), tmp_path)["kohya"])
    first = next(iter(tensors)).split(".")[0]
    save_file({**tensors, f"{first}.{mark}": torch.ones(64, 1)}, tmp_path / "dora.safetensors")
    with pytest.raises(ModelError, match=rf"is a DoRA \(tensor {first}\.{mark}\), which isn't supported"):
        find_lora(tmp_path / "dora.safetensors")


def test_small_untrained_has_the_smalls_layers(tmp_path: Path) -> None:
    changed(LoraModel(build_small(0), LoraSettings(rank=2), seed=0)).save(tmp_path)
    assert len(read_lora(tmp_path / KOHYA_FILE, build_small(0))["unet"]) == 56


def text_names(pipeline: StableDiffusionXLPipeline) -> dict[str, torch.nn.Module]:
    """An attention layer of each text encoder by diffusers' name, as files of every version have it."""
    found = {}
    for network in ("text_encoder", "text_encoder_2"):
        for name, module in getattr(pipeline, network).named_modules():
            if name.endswith(("layers.0.self_attn.q_proj", "layers.1.self_attn.out_proj")):
                found[f"{network}.text_model.{name.removeprefix('text_model.')}"] = module
    return found


@pytest.mark.parametrize("age", ["today", "oldest"])
def test_text_encoders_of_diffusers_training_scripts_are_read(tmp_path: Path, age: str) -> None:
    """Against diffusers' own reading of them, in `StableDiffusionXLPipeline.load_lora_weights`."""
    pipeline, tensors, generator = load_pipeline("small"), {}, torch.Generator().manual_seed(1)
    for name, module in text_names(pipeline).items():
        down = torch.randn(2, module.weight.shape[1], generator=generator)
        up = torch.randn(module.weight.shape[0], 2, generator=generator)
        if age == "oldest":
            name = name.replace("q_proj", "to_q_lora").replace("out_proj", "to_out_lora")
        else:
            name = f"{name}.lora_linear_layer"
        tensors |= {f"{name}.down.weight": down, f"{name}.up.weight": up}
    file = tmp_path / "lora.safetensors"
    save_file(tensors, file)
    found = read_lora(file, pipeline)
    assert {network: len(layers) for network, layers in found.items()} == {"text_encoder": 2, "text_encoder_2": 2}
    ours, theirs = load_pipeline("small"), load_pipeline("small")
    load_lora(ours, file, fuse=True)
    theirs.load_lora_weights(tmp_path, weight_name=file.name)
    theirs.fuse_lora()
    theirs.unload_lora_weights()
    for network in found:
        before, expected, fused_ = (getattr(one, network).state_dict() for one in (pipeline, theirs, ours))
        for key, tensor in expected.items():
            torch.testing.assert_close(fused_[key], tensor, rtol=1e-5, atol=1e-5)
        assert sum(not torch.equal(before[key], tensor) for key, tensor in fused_.items()) == 2


def test_alphas_of_a_pattern_are_matched_as_peft_matches_them(tmp_path: Path) -> None:
    """Its keys are ends of names, or regular expressions."""
    patterns = {"attentions.0.transformer_blocks.0.attn1.to_q": 6, r"down_blocks\.\d+\..*to_k": 2}
    settings = LoraConfig(
        r=4, lora_alpha=3, alpha_pattern=patterns, init_lora_weights=False, target_modules=["to_q", "to_k"]
    )
    pipeline = load_pipeline("small")
    pipeline.unet.add_adapter(settings)
    stated = {f"unet.{key}": settings.to_dict()[key] for key in ("lora_alpha", "alpha_pattern")}
    tensors = {f"unet.{name}": tensor for name, tensor in get_peft_model_state_dict(pipeline.unet).items()}
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(stated)})
    layers = read_lora(tmp_path / "x.safetensors", load_pipeline("small"))["unet"]
    expected = {name: pipeline.unet.get_submodule(name).scaling["default"] for name in layers}
    assert {name: layer.scale for name, layer in layers.items()} == expected
    assert set(expected.values()) == {6 / 4, 2 / 4, 3 / 4}
    stated["unet.alpha_pattern"] = {"(": 5}
    save_file(tensors, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(stated)})
    with pytest.raises(ModelError, match=r"x\.safetensors': unet .*: its alpha must be a finite number: "):
        read_lora(tmp_path / "x.safetensors", load_pipeline("small"))


def test_a_folder_of_pefts_own_keeps_its_alpha(tmp_path: Path) -> None:
    settings = LoraConfig(r=4, lora_alpha=10, init_lora_weights=False, target_modules=["to_q"])
    pipeline = load_pipeline("small")
    get_peft_model(pipeline.unet, settings).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    assert {layer.scale for layer in read_lora(file, load_pipeline("small"))["unet"].values()} == {2.5}
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config\.json': peft's settings of the LoRA .* can't be read"):
        read_lora(file, load_pipeline("small"))
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors': .*alpha is in adapter_config\.json .*copy it"):
        read_lora(file, load_pipeline("small"))


def test_comfyuis_own_names_are_read(tmp_path: Path) -> None:
    """As its node that extracts a LoRA writes them."""
    found = files(trained(SETTINGS[0]), tmp_path)
    save_single_file(load_pipeline("small"), tmp_path / "base.safetensors", torch.float32)
    base, kohyas = load_file(tmp_path / "base.safetensors"), load_file(found["kohya"])
    tensors = {
        f"{name.removeprefix('model.').removesuffix('.weight')}.{part}": kohyas[f"{key}.{part}"]
        for name, key in kohya(kohyas, base).items()
        for part in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    text = "text_encoders.clip_{}.transformer.text_model.encoder.layers.0.self_attn.q_proj"
    for letter in "lg":
        tensors[f"{text.format(letter)}.lora_down.weight"] = torch.ones(2, 64)
        tensors[f"{text.format(letter)}.lora_up.weight"] = torch.ones(64, 2)
    save_file(tensors, tmp_path / "comfyui.safetensors")
    expected, layers = (
        read_lora(tmp_path / file, load_pipeline("small")) for file in (KOHYA_FILE, "comfyui.safetensors")
    )
    assert layers["unet"].keys() == expected["unet"].keys()
    assert all(layer.scale == expected["unet"][name].scale for name, layer in layers["unet"].items())
    assert [len(layers[network]) for network in ("text_encoder", "text_encoder_2")] == [1, 1]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("bundle_emb.maria.clip_l", "embeddings"),
        ("lora_unet_input_blocks_1_0_in_layers_2.diff", "whole updates of weights"),
        ("lora_unet_input_blocks_1_0_in_layers_2.diff_b", "updates of biases"),
        ("lora_unet_input_blocks_1_0_in_layers_0.w_norm", "updates of normalisations"),
    ],
)
def test_what_lies_beside_the_layers_is_named(tmp_path: Path, key: str, kind: str) -> None:
    """OneTrainer bundles embeddings, LyCORIS has updates of other kinds."""
    tensors = load_file(files(trained(SETTINGS[0]), tmp_path)["kohya"])
    save_file({**tensors, key: torch.ones(4, 64)}, tmp_path / "more.safetensors")
    with pytest.raises(ModelError, match=rf"has {kind} too \(tensor {key}\), which aren't supported: save the LoRA"):
        load_lora(load_pipeline("small"), tmp_path / "more.safetensors")
