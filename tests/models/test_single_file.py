"""SDXL checkpoints as single files in the original layout."""

import json
import re
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file
from torch import Tensor

from fairhuman.bases.noising import Ddpm
from fairhuman.bases.sdxl import noise_scheduler
from fairhuman.errors import ModelError, RecipeError
from fairhuman.generate.sample import draw, picture_generator, sample
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.architecture import build_meta, build_small
from fairhuman.models.checkpoint_file import read_checkpoint
from fairhuman.models.fingerprint import base_fingerprint, encoded_size
from fairhuman.models.locations import check_base, check_location
from fairhuman.models.original import PREFIXES, original_of
from fairhuman.models.sdxl import load_pipeline, scheduler_config
from fairhuman.models.settings import BaseSettings
from fairhuman.models.single_file import save_single_file
from fairhuman.utils.safetensors_header import read_header

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
DRAW = SampleSettings(steps=3, height=32, width=48, guidance=4.0, seed=5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small SDXL in the original layout."""
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_single_file(load_pipeline("small"), path, torch.float16)
    return path


def rewritten(checkpoint: Path, path: Path, change: Callable[[dict[str, Tensor]], object], **metadata: str) -> Path:
    tensors = load_file(checkpoint)
    change(tensors)
    save_file(tensors, path, metadata=metadata)
    return path


def header_alone(path: Path, shapes: dict[str, list[int]], dtype: str = "F16") -> Path:
    """A file whose tensors have these shapes and are all zeros, written sparsely."""
    size, header, end = {"F16": 2, "F8_E4M3": 1}[dtype], {}, 0
    for name, shape in shapes.items():
        start, end = end, end + size * torch.Size(shape).numel()
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def sdxl_shapes() -> dict[str, list[int]]:
    """Names and shapes of a whole SDXL in the original layout."""
    pipeline, shapes = build_meta("sdxl"), {}
    for part in PREFIXES:
        for name, tensor in getattr(pipeline, part).state_dict().items():
            where = original_of(part, name, 2, 4)
            shape = list(tensor.shape)
            shapes[where.key] = [3 * shape[0], *shape[1:]] if where.third is not None else shape
    return shapes


def test_a_single_file_gives_the_pictures_of_the_folder_without_the_network(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", None)
    drawn = []
    for model in ("small", str(checkpoint)):
        pipeline = load_pipeline(model)
        drawn.append(draw(pipeline, ["a man in a red hat"], [picture_generator(1, 0, 0)], DRAW))
    assert (drawn[0] - drawn[1]).abs().max() <= 1e-3
    assert drawn[0].std() > 0.05


def test_every_tensor_comes_back_and_vae_stays_exact_in_half_precision(checkpoint: Path) -> None:
    ours, theirs = load_pipeline("small"), load_pipeline(str(checkpoint))
    for part in PARTS:
        expected, found = getattr(ours, part).state_dict(), getattr(theirs, part).state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        assert not getattr(theirs, part).training
    for model in ("small", str(checkpoint)):
        half = load_pipeline(model, dtype=torch.bfloat16)
        assert half.unet.dtype == half.text_encoder_2.dtype == torch.bfloat16
        expected, found = ours.vae.state_dict(), half.vae.state_dict()
        assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_diffusers_own_conversion_reads_what_is_written(checkpoint: Path) -> None:
    """The names against an independent table: diffusers' functions for the original layout."""
    tensors, pipeline = load_file(checkpoint), load_pipeline("small")
    found = {
        "unet": convert_ldm_unet_checkpoint(tensors, dict(pipeline.unet.config)),
        "vae": convert_ldm_vae_checkpoint(tensors, dict(pipeline.vae.config)),
        "text_encoder": convert_ldm_clip_checkpoint(tensors),
        "text_encoder_2": convert_open_clip_checkpoint(
            pipeline.text_encoder_2, tensors, prefix="conditioner.embedders.1.model."
        ),
    }
    for part, state in found.items():
        expected = {name.removeprefix("text_model."): t for name, t in getattr(pipeline, part).state_dict().items()}
        state = {name.removeprefix("text_model."): tensor for name, tensor in state.items()}
        assert expected.keys() == state.keys(), part
        assert all(torch.equal(expected[name], state[name].float()) for name in expected)


def test_sdxls_names_are_those_that_diffusers_converts() -> None:
    """2,513 tensors of SDXL, on meta: each name, shape and third, by diffusers' own table."""
    pipeline, shapes = build_meta("sdxl"), sdxl_shapes()
    assert len(shapes) == 2513
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    unet = convert_ldm_unet_checkpoint(tensors, dict(pipeline.unet.config))
    vae = convert_ldm_vae_checkpoint(tensors, dict(pipeline.vae.config))
    for part, state in (("unet", unet), ("vae", vae)):
        expected = getattr(pipeline, part).state_dict()
        assert expected.keys() == state.keys()
        assert all(expected[name].shape == state[name].shape for name in expected)


def test_clips_vocabulary_is_clips() -> None:
    pipeline = build_meta("sdxl")
    first, second = pipeline.tokenizer, pipeline.tokenizer_2
    assert len(first) == len(second) == pipeline.text_encoder.config.vocab_size == 49408
    # ids as openai/clip-vit-large-patch14 gives them
    assert first("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert first("Größe, 2 hands!").input_ids[0] == 49406
    padded = [one("a cat", padding="max_length").input_ids for one in (first, second)]
    assert [ids[4:] for ids in padded] == [[49407] * 73, [0] * 73]
    assert pipeline.text_encoder_2.config.hidden_act == "gelu"
    assert pipeline.text_encoder.config.hidden_act == "quick_gelu"


def public(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's settings, without diffusers' list of those that are its defaults, whose order is a set's."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def test_v_prediction_and_zero_snr_are_recognised(checkpoint: Path, tmp_path: Path) -> None:
    plain = load_pipeline(str(checkpoint)).scheduler.config
    assert (plain.prediction_type, plain.rescale_betas_zero_snr) == ("epsilon", False)
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    by_keys = rewritten(checkpoint, tmp_path / "keys.safetensors", lambda tensors: tensors.update(marks))
    by_spec = rewritten(
        checkpoint, tmp_path / "spec.safetensors", lambda tensors: tensors.keys(), **{"modelspec.prediction_type": "v"}
    )
    found = load_pipeline(str(by_keys)).scheduler.config
    assert (found.prediction_type, found.rescale_betas_zero_snr) == ("v_prediction", True)
    assert found.timestep_spacing == "trailing"
    assert public(scheduler_config(str(by_keys))) == public(found)
    found = load_pipeline(str(by_spec)).scheduler.config
    assert (found.prediction_type, found.rescale_betas_zero_snr) == ("v_prediction", False)
    set_ = BaseSettings(prediction="epsilon", zero_snr=False)
    found = load_pipeline(str(by_keys), base=set_).scheduler.config
    assert (found.prediction_type, found.rescale_betas_zero_snr) == ("epsilon", False)
    saved = tmp_path / "again.safetensors"
    save_single_file(load_pipeline(str(by_keys)), saved, torch.float16)
    again = read_checkpoint(saved, str(saved))
    assert (again.prediction, again.zero_snr) == ("v", True)


def test_settings_of_the_base_hold_for_every_kind_of_model(checkpoint: Path) -> None:
    base = BaseSettings(prediction="v", zero_snr=True)
    for model in ("small", "small-untrained", str(checkpoint)):
        found = load_pipeline(model, base=base).scheduler.config
        assert (found.prediction_type, found.rescale_betas_zero_snr) == ("v_prediction", True)
    with pytest.raises(ModelError, match=r"base\.zero_snr=true needs .*v-prediction.*set base\.prediction=v"):
        load_pipeline("small", base=BaseSettings(zero_snr=True))


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_zero_terminal_snr_is_finite_everywhere(gamma: float | None) -> None:
    pipeline = load_pipeline("small-untrained", base=BaseSettings(prediction="v", zero_snr=True))
    scheduler, t_b = noise_scheduler(pipeline), torch.arange(1000)
    assert scheduler.alphas_cumprod[-1] == 0
    assert bool(Ddpm(scheduler).snr(t_b).log().isfinite().all())
    assert bool(Ddpm(scheduler).weights(t_b, gamma).isfinite().all())
    noise_bchw = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    last = scheduler.add_noise(torch.ones_like(noise_bchw), noise_bchw, t_b[-1:].repeat(2))
    assert torch.equal(last, noise_bchw)
    for steps in (1, 5, 30):
        [picture] = sample(pipeline, ["a hat"], DRAW.model_copy(update={"steps": steps, "batch_size": 1}))
        assert picture.image.size == (48, 32)


def test_ordinary_snr_is_unchanged() -> None:
    scheduler, t_b = noise_scheduler(build_small(0)), torch.arange(1000)
    alphas_b = scheduler.alphas_cumprod
    assert torch.equal(Ddpm(scheduler).snr(t_b), alphas_b / (1 - alphas_b))


def test_a_vae_of_ones_own(checkpoint: Path, tmp_path: Path) -> None:
    other = build_small(3).vae
    other.save_pretrained(tmp_path / "vae")
    pipeline = build_small(3)
    pipeline.save_pretrained(tmp_path / "pipeline")
    save_single_file(pipeline, tmp_path / "whole.safetensors", torch.float32)
    bare = {
        name.removeprefix(PREFIXES["vae"]): tensor
        for name, tensor in load_file(tmp_path / "whole.safetensors").items()
        if name.startswith(PREFIXES["vae"])
    }
    save_file(bare, tmp_path / "bare.safetensors")
    no_vae = rewritten(
        checkpoint,
        tmp_path / "no-vae.safetensors",
        lambda tensors: [tensors.pop(name) for name in [*tensors] if name.startswith(PREFIXES["vae"])],
    )
    places = ("vae", "pipeline", "whole.safetensors", "bare.safetensors", "vae/diffusion_pytorch_model.safetensors")
    for place in places:
        base = BaseSettings(vae=str(tmp_path / place))
        for model in ("small", str(no_vae)):
            found = load_pipeline(model, dtype=torch.bfloat16, base=base).vae
            assert isinstance(found, AutoencoderKL)
            expected = other.state_dict()
            assert all(torch.equal(expected[name], tensor) for name, tensor in found.state_dict().items())
    with pytest.raises(ModelError, match=r"no-vae.*has no VAE: give one as base\.vae"):
        load_pipeline(str(no_vae))
    with pytest.raises(ModelError, match=r"base\.vae .*expected a folder"):
        load_pipeline("small", base=BaseSettings(vae=str(tmp_path / "none.safetensors")))


def test_sizes_and_fingerprint_are_read_without_loading(checkpoint: Path, tmp_path: Path) -> None:
    assert encoded_size(str(checkpoint)) == encoded_size("small")
    sdxl = header_alone(tmp_path / "sdxl.safetensors", sdxl_shapes())
    assert encoded_size(str(sdxl)).width == 2048
    assert read_checkpoint(sdxl, "sdxl").architecture == "sdxl"

    def nudge(tensors: dict[str, Tensor]) -> None:
        tensors[PREFIXES["unet"] + "out.2.weight"] += 1.0

    other = rewritten(checkpoint, tmp_path / "other.safetensors", nudge)
    same = tmp_path / "same.safetensors"
    same.write_bytes(checkpoint.read_bytes())
    marks = [base_fingerprint(str(path), BaseSettings()) for path in (checkpoint, same, other)]
    assert marks[0] == marks[1] != marks[2]
    assert base_fingerprint(str(checkpoint), BaseSettings(vae=str(other))) not in marks
    assert base_fingerprint("owner/name", BaseSettings()) is None


UNET = PREFIXES["unet"]
CONV_IN, TEXT, CONTEXT = (
    UNET + name
    for name in (
        "input_blocks.0.0.weight",
        "label_emb.0.0.weight",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    )
)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"lora_unet_x.lora_down.weight": [4, 8]}, "found a LoRA: give it as --lora"),
        ({"unet.x.lora_A.weight": [4, 8]}, "found a LoRA: give it as --lora"),
        ({CONV_IN: [320, 4, 3, 3], CONTEXT: [320, 768]}, "Stable Diffusion 1"),
        ({CONV_IN: [320, 4, 3, 3], CONTEXT: [320, 1024]}, "Stable Diffusion 2"),
        ({CONV_IN: [320, 9, 3, 3], CONTEXT: [320, 768]}, r"inpainting model \(9 input channels\)"),
        ({CONV_IN: [320, 9, 3, 3], TEXT: [1280, 2816]}, r"SDXL inpainting model \(9 input channels\)"),
        ({CONV_IN: [320, 8, 3, 3], TEXT: [1280, 2816]}, r"editing model \(8 input channels\)"),
        ({CONV_IN: [384, 4, 3, 3], TEXT: [1536, 2560]}, "SDXL refiner"),
        ({"double_blocks.0.img_attn.norm.key_norm.scale": [128]}, "FLUX model"),
        ({UNET + "double_blocks.0.img_attn.norm.key_norm.scale": [128]}, "FLUX model"),
        ({UNET + "joint_blocks.0.context_block.adaLN_modulation.1.bias": [9]}, "Stable Diffusion 3"),
        ({"control_model.time_embed.0.weight": [4, 4]}, "ControlNet: give it as --controlnet"),
        ({"down_blocks.0.resnets.0.conv1.weight": [4, 4, 3, 3]}, "U-Net alone, in diffusers' layout"),
        ({"decoder.conv_in.weight": [4, 4, 3, 3]}, r"VAE alone: give it as base\.vae"),
        ({"edm_mean": [4], CONV_IN: [320, 4, 3, 3], TEXT: [1280, 2816]}, "Playground v2.5"),
        ({CONV_IN: [320, 4, 3, 3], TEXT: [1280, 2816]}, r"has no VAE: give one as base\.vae"),
        ({CONV_IN: [256, 4, 3, 3], TEXT: [1024, 2816]}, r"first layers have the shapes .* found \[256, 4, 3, 3\]"),
        ({"something": [1]}, r"file of another kind \(1 tensors, such as something\)"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path: Path, shapes: dict[str, list[int]], message: str) -> None:
    path = header_alone(tmp_path / "model.safetensors", shapes)
    with pytest.raises(ModelError, match=rf"^model .*model\.safetensors': .*{message}") as found:
        check_location(str(path))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "name",
    [
        "single_stream_modulation.lin.weight",
        "double_blocks.0.img_attn.qkv.weight",
        "joint_blocks.0.context_block.adaLN_modulation.1.bias",
        "cap_embedder.0.weight",
        "transformer_blocks.0.img_mlp.net.0.proj.weight",
    ],
)
def test_a_single_file_of_another_base_names_the_folder(tmp_path: Path, name: str) -> None:
    path = header_alone(tmp_path / "model.safetensors", {name: [4]})
    with pytest.raises(ModelError, match=r"as a single file: give its diffusers folder or hub id \(docs/bases\.md\)$"):
        check_location(str(path))


def test_fp8_and_missing_encoders_are_refused_by_name(tmp_path: Path) -> None:
    shapes = sdxl_shapes()
    coarse = header_alone(tmp_path / "fp8.safetensors", shapes, "F8_E4M3")
    with pytest.raises(ModelError, match=r"weights in fp8 \(2513 of 2513 tensors\).*fp16 or bf16"):
        check_location(str(coarse))
    for part, title in (("text_encoder", "first text encoder"), ("text_encoder_2", "second text encoder")):
        kept = {name: shape for name, shape in shapes.items() if not name.startswith(PREFIXES[part])}
        path = header_alone(tmp_path / "lacking.safetensors", kept)
        with pytest.raises(ModelError, match=f"the file has no {title}"):
            check_location(str(path))


def test_files_that_are_no_model_say_what_they_are(checkpoint: Path, tmp_path: Path) -> None:
    whole = checkpoint.read_bytes()
    files = {
        "cut.safetensors": (whole[:-1000], r"cut off: it has [\d,]+ bytes, its header describes [\d,]+\. Copy"),
        "head.safetensors": (whole[:500], "the file is cut off"),
        "empty.safetensors": (b"", r"another format \(0 bytes\)"),
        "photo.safetensors": (b"\x89PNG\r\n\x1a\n" + bytes(64), "found a PNG picture"),
        "photo.jpg": (b"\xff\xd8\xff\xe0" + bytes(64), "found a JPEG picture"),
        "page.safetensors": (b"<!DOCTYPE html><html></html> and more", "found a web page"),
        "old.ckpt": (b"PK\x03\x04" + bytes(64), r"\.ckpt files may run code when loaded; convert it"),
    }
    for name, (content, message) in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelError, match=rf"{re.escape(name)}'.*{message}") as found:
            check_location(str(path))
        assert "\n" not in str(found.value)
    with pytest.raises(ModelError, match=r"'models/none\.safetensors': .*found no such file"):
        check_location("models/none.safetensors")


ENTRY = {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}
DAMAGED = "header is damaged; copy or download it again"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": ENTRY | {"data_offsets": [0, "x"]}}, DAMAGED),
        ({"a": ENTRY | {"data_offsets": [0]}}, DAMAGED),
        ({"a": ENTRY | {"data_offsets": None}}, DAMAGED),
        ({"a": ENTRY | {"shape": ["x"]}}, DAMAGED),
        ({"a": ENTRY | {"shape": [-1]}}, DAMAGED),
        ({"a": ENTRY | {"shape": 5}}, DAMAGED),
        ({"a": 5}, DAMAGED),
        ({"__metadata__": 5}, DAMAGED),
        ({"a": ENTRY | {"dtype": [5]}}, "file of another kind"),
        ({TEXT: ENTRY | {"shape": []}, CONV_IN: ENTRY | {"shape": []}}, r"first layers have the shapes .* found \[\]"),
        ({CONV_IN: ENTRY, CONTEXT: ENTRY | {"shape": []}}, "a file of another kind"),
    ],
)
def test_odd_headers_are_one_line(tmp_path: Path, header: dict[str, Any], message: str) -> None:
    path, text = tmp_path / "odd.safetensors", json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(2))
    with pytest.raises(ModelError, match=rf"odd\.safetensors': .*{message}") as found:
        check_location(str(path))
    assert "\n" not in str(found.value)


def test_a_folder_that_is_called_like_a_vae_is_named(tmp_path: Path) -> None:
    (tmp_path / "vae.safetensors").mkdir()
    with pytest.raises(ModelError, match=r"^base\.vae '.*vae\.safetensors': expected the folder of a VAE, found none"):
        check_base("small", BaseSettings(vae=str(tmp_path / "vae.safetensors")))


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    path, text = tmp_path / "x.safetensors", json.dumps({"a": ENTRY}).encode().ljust(0x280)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(2))
    assert path.read_bytes().startswith(b"\x80\x02"), "as a pickle of protocol 2 does"
    assert read_header(path, "x").tensors["a"].shape == (1,)
    path.write_bytes(b"\x80\x02" + bytes(64))
    with pytest.raises(ModelError, match=r"^x: expected a \.safetensors file, found a pickle file"):
        read_header(path, "x")
    text = b"{" + b" " * 16_000_000
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ModelError, match=r"^x: its header must have at most 16,000,000 bytes, found 16,000,001"):
        read_header(path, "x")


def test_tensors_that_fit_no_layer_or_are_missing_are_named(checkpoint: Path, tmp_path: Path) -> None:
    name = UNET + "middle_block.1.norm.weight"
    missing = rewritten(checkpoint, tmp_path / "missing.safetensors", lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match=rf"the tensor {re.escape(name)} is missing"):
        load_pipeline(str(missing))
    extra = {UNET + "middle_block.1.transformer_blocks.7.norm1.weight": torch.zeros(3)}
    more = rewritten(checkpoint, tmp_path / "more.safetensors", lambda tensors: tensors.update(extra))
    with pytest.raises(ModelError, match=r"1 tensors fit no layer of SDXL, such as .*transformer_blocks\.7"):
        load_pipeline(str(more))
    counters = {
        "conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "conditioner.embedders.1.model.logit_scale": torch.zeros(()),
        "model_ema.decay": torch.zeros(()),
    }
    known = rewritten(checkpoint, tmp_path / "known.safetensors", lambda tensors: tensors.update(counters))
    assert load_pipeline(str(known)).unet is not None


def test_folder_with_fp16_file_names_loads(tmp_path: Path) -> None:
    load_pipeline("small", dtype=torch.float16).save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    expected, found = load_pipeline("small").unet.state_dict(), load_pipeline(str(tmp_path)).unet.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_loading_the_small_model_prints_no_bar(capfd: pytest.CaptureFixture[str]) -> None:
    load_pipeline("small")
    assert capfd.readouterr() == ("", "")


def test_zero_snr_without_v_is_a_wrong_setting() -> None:
    from fairhuman import config

    with pytest.raises(RecipeError, match=r"zero_snr=true needs base\.prediction=v"):
        config.build(BaseSettings, {}, ["zero_snr=true", "prediction=epsilon"])
    assert config.build(BaseSettings, {}, ["zero_snr=true"]).zero_snr is True
    assert config.build(BaseSettings, {}, ["zero_snr=auto"]).zero_snr == "auto"


def test_the_text_projection_of_diffusers_earlier_converter_is_read(checkpoint: Path, tmp_path: Path) -> None:
    """It wrote a layer's weight, which isn't transposed."""
    name = PREFIXES["text_encoder_2"] + "text_projection"

    def as_earlier(tensors: dict[str, Tensor]) -> None:
        tensors[f"{name}.weight"] = tensors.pop(name).T.contiguous()

    earlier = rewritten(checkpoint, tmp_path / "earlier.safetensors", as_earlier)
    expected, found = (load_pipeline(str(path)).text_encoder_2.text_projection for path in (checkpoint, earlier))
    assert torch.equal(expected.weight, found.weight)
    gone = rewritten(checkpoint, tmp_path / "gone.safetensors", lambda tensors: tensors.pop(name))
    with pytest.raises(ModelError, match=rf"the tensor {re.escape(name)} is missing"):
        load_pipeline(str(gone))


def test_a_vae_of_another_models_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Stable Diffusion 1's has the same layers, but another scale."""

    def as_stable_diffusion_1(tensors: dict[str, Tensor]) -> None:
        del tensors[TEXT]
        tensors[CONTEXT] = torch.zeros(32, 768)

    other = rewritten(checkpoint, tmp_path / "sd1.safetensors", as_stable_diffusion_1)
    message = r"^base\.vae '.*sd1\.safetensors': .*an SDXL checkpoint.*found a Stable Diffusion 1 model"
    with pytest.raises(ModelError, match=message):
        load_pipeline("small", base=BaseSettings(vae=str(other)))
