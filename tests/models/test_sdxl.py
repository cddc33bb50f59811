import json
from pathlib import Path

import pytest
import torch
from diffusers import (
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)

from fairhuman.bases.latents import decode_latents, encode_pictures, vae_factor
from fairhuman.bases.sdxl import encode_prompts, noise_scheduler
from fairhuman.errors import ModelError
from fairhuman.models.architecture import build_small, sdxl_unet_config
from fairhuman.models.locations import check_location, check_vae
from fairhuman.models.sdxl import check_sdxl, load_pipeline
from fairhuman.models.settings import BaseSettings

CAPTIONS = ["a person in a red shirt", "", "an astronaut in Zürich, waving with 5 fingers!"]


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    return build_small(seed=0)


@pytest.fixture
def pictures_bchw() -> torch.Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_small_pipeline_has_sdxls_shape_at_six_million_parameters(pipeline: StableDiffusionXLPipeline) -> None:
    unet = pipeline.unet.config
    for key in ("down_block_types", "up_block_types", "addition_embed_type", "use_linear_projection"):
        assert unet[key] == sdxl_unet_config()[key]
    assert 5e6 < sum(p.numel() for p in pipeline.unet.parameters()) < 7e6
    assert vae_factor(pipeline.vae) == pipeline.vae_scale_factor == 4


def test_small_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build_small(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    second, other = build_small(3), build_small(4)
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        a, b, c = (list(getattr(p, part).state_dict().values()) for p in (first, second, other))
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
        assert not all(torch.equal(x, y) for x, y in zip(a, c, strict=True))


class Planted:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, str]]:
        return Path.write_text, (self.path, "it ran")


def test_keys_of_caches_see_the_small_pipelines_settings_as_given_by_hand(pipeline: StableDiffusionXLPipeline) -> None:
    """In files they are lists, and have the stored weights' dtype and class."""
    assert pipeline.vae.config.block_out_channels == (16, 32, 64)
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        assert encoder.config.architectures is None
        assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_pickles_are_never_read_and_alone_they_are_refused(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    folder, ran = tmp_path / "model", tmp_path / "ran"
    pipeline.save_pretrained(folder)
    pickled = folder / "text_encoder" / "pytorch_model.bin"
    torch.save(Planted(ran), pickled)
    assert load_pipeline(str(folder)).unet is not None  # beside safetensors
    (folder / "text_encoder" / "model.safetensors").unlink()
    for load in (load_pipeline, check_location):
        with pytest.raises(ModelError) as told:
            load(str(folder))
        (line,) = str(told.value).splitlines()
        assert line.startswith(f"model {str(folder)!r}: {pickled} is a pickle, which may run code when it is loaded")
        assert "take a copy of the model with safetensors" in line
    assert not ran.exists()
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    vae.rename(vae.with_suffix(".bin"))
    for place in (folder, folder / "vae"):
        with pytest.raises(ModelError, match=r"^base.vae .*diffusion_pytorch_model.bin is a pickle"):
            check_vae(str(place))


def test_saved_folder_loads_equal(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = load_pipeline(str(tmp_path))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        ours, theirs = getattr(pipeline, part).state_dict(), getattr(loaded, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for ours, theirs in zip(encode_prompts(pipeline, CAPTIONS), encode_prompts(loaded, CAPTIONS), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert loaded.scheduler.config.beta_schedule == "scaled_linear"
    half = load_pipeline(str(tmp_path), dtype=torch.bfloat16)
    assert half.unet.dtype == half.text_encoder.dtype == torch.bfloat16
    assert half.vae.dtype == torch.float32


def test_prompts_are_encoded_as_the_pipeline_does(pipeline: StableDiffusionXLPipeline) -> None:
    captions = [caption for caption in CAPTIONS if caption] + ["a long caption " * 60]
    embeds, pooled = encode_prompts(pipeline, captions)
    expected = pipeline.encode_prompt(captions)
    assert torch.equal(embeds, expected[0])
    assert torch.equal(pooled, expected[2])
    assert embeds.shape == (3, 77, pipeline.unet.config.cross_attention_dim)


@pytest.mark.parametrize("zeros", [True, False])
def test_empty_prompt_is_the_unconditional_branch(zeros: bool) -> None:
    pipeline = build_small(0)
    pipeline.register_to_config(force_zeros_for_empty_prompt=zeros)
    embeds, pooled = encode_prompts(pipeline, CAPTIONS)
    _, unconditional, _, unconditional_pooled = pipeline.encode_prompt(CAPTIONS)
    torch.testing.assert_close(embeds[1], unconditional[1])
    torch.testing.assert_close(pooled[1], unconditional_pooled[1])
    assert bool((embeds[1] == 0).all()) is zeros
    assert not (embeds[0] == 0).all()


def test_latents_respect_shift_and_scale(pipeline: StableDiffusionXLPipeline, pictures_bchw: torch.Tensor) -> None:
    vae = build_small(0).vae
    plain = encode_pictures(vae, pictures_bchw)
    decoded = decode_latents(vae, plain)
    vae.register_to_config(scaling_factor=0.5, shift_factor=0.25)
    scaled = encode_pictures(vae, pictures_bchw)
    torch.testing.assert_close(scaled, (plain - 0.25) * 0.5)
    torch.testing.assert_close(decode_latents(vae, scaled), decoded, rtol=0, atol=1e-5)
    assert plain.shape == (2, 4, 12, 16)
    assert decoded.shape == pictures_bchw.shape


def test_latent_noise_is_the_given_one(pipeline: StableDiffusionXLPipeline, pictures_bchw: torch.Tensor) -> None:
    posterior = pipeline.vae.encode(pictures_bchw).latent_dist
    noise = torch.randn(2, 4, 12, 16, generator=torch.Generator().manual_seed(1))
    found = encode_pictures(pipeline.vae, pictures_bchw, noise)
    torch.testing.assert_close(found, posterior.mean + posterior.std * noise)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encode_pictures(pipeline.vae, pictures_bchw, noise), found)


def test_half_precision_vae_runs_in_float32(pictures_bchw: torch.Tensor) -> None:
    vae = build_small(0).vae
    rounded = build_small(0).vae.half().float()
    vae.half()
    assert torch.equal(encode_pictures(vae, pictures_bchw.half()), encode_pictures(rounded, pictures_bchw.half()))


def test_vae_that_overflows_is_named(pictures_bchw: torch.Tensor) -> None:
    vae = build_small(0).vae
    vae.quant_conv.weight.data.fill_(3e38)
    with pytest.raises(ModelError, match=r"the VAE's latents: .* aren't finite.*sdxl-vae-fp16-fix"):
        encode_pictures(vae, pictures_bchw)


def test_picture_sides_must_fit_the_vae(pipeline: StableDiffusionXLPipeline) -> None:
    with pytest.raises(ModelError, match=r"multiples of the VAE's factor 4, found \[1, 3, 30, 32\]"):
        encode_pictures(pipeline.vae, torch.zeros(1, 3, 30, 32))


def test_noise_follows_the_pipelines_scheduler(pipeline: StableDiffusionXLPipeline) -> None:
    scheduler = noise_scheduler(pipeline)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    torch.testing.assert_close(scheduler.alphas_cumprod, torch.cumprod(1 - betas, 0))
    changed = build_small(0)
    changed.scheduler = EulerDiscreteScheduler(prediction_type="v_prediction")
    assert noise_scheduler(changed).config.prediction_type == "v_prediction"


def test_model_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with pytest.raises(ModelError, match=r"nowhere': expected 'small'.*found no such folder"):
        load_pipeline(str(missing))
    with pytest.raises(ModelError, match=r"found a folder without model_index\.json"):
        load_pipeline(str(tmp_path))


def test_other_pipeline_is_named(tmp_path: Path) -> None:
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1"}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"expected a StableDiffusionXLPipeline.*found StableDiffusionPipeline"):
        load_pipeline(str(tmp_path))


def test_folder_with_a_missing_part_is_named(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    for file in (tmp_path / "unet").iterdir():
        file.unlink()
    with pytest.raises(ModelError, match=rf"{tmp_path.name}.*loading failed: .*unet"):
        load_pipeline(str(tmp_path))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("scheduler", None, "expected a scheduler with a beta_schedule, found EDMDPMSolverMultistepScheduler: it is"),
        ("vae", {"latents_mean": [-1.6, 1.9, -1.4, 2.5]}, "has a VAE with latents_mean in its configuration"),
    ],
)
def test_edm_models_are_refused_early_and_late(
    pipeline: StableDiffusionXLPipeline, tmp_path: Path, part: str, value: dict[str, object] | None, message: str
) -> None:
    pipeline.save_pretrained(tmp_path)
    if value is None:
        index = json.loads((tmp_path / "model_index.json").read_text())
        index["scheduler"] = ["diffusers", "EDMDPMSolverMultistepScheduler"]
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        EDMDPMSolverMultistepScheduler().save_pretrained(tmp_path / "scheduler")
    else:
        edit(tmp_path / "vae" / "config.json", **value)
    with pytest.raises(ModelError, match=message):
        check_location(str(tmp_path))
    with pytest.raises(ModelError, match=message):
        check_sdxl(StableDiffusionXLPipeline.from_pretrained(tmp_path), "owner/name")


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_vae_of_another_scale_is_refused(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "model")
    pipeline.vae.save_pretrained(tmp_path / "vae")
    base = BaseSettings(vae=str(tmp_path / "vae"))
    edit(tmp_path / "vae" / "config.json", scaling_factor=0.18215)
    for model in ("small-untrained", "small", str(tmp_path / "model")):
        with pytest.raises(ModelError, match=r"base\.vae .*expected scaling_factor 1\.0, .* found 0\.18215"):
            load_pipeline(model, base=base)


def test_file_names_with_fp16_are_read_everywhere(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path / "sdxl", variant="fp16")
    assert load_pipeline("small", base=BaseSettings(vae=str(tmp_path / "sdxl"))).vae is not None
    assert load_pipeline(str(tmp_path / "sdxl")).unet is not None
    load_pipeline("small-flow").save_pretrained(tmp_path / "flow", variant="fp16")
    assert load_pipeline(str(tmp_path / "flow")).transformer is not None


def test_zero_snr_of_a_folder_starts_at_the_last_timestep(pipeline: StableDiffusionXLPipeline, tmp_path: Path) -> None:
    pipeline.save_pretrained(tmp_path)
    stated = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "leading"}
    edit(tmp_path / "scheduler" / "scheduler_config.json", **stated)
    scheduler = load_pipeline(str(tmp_path)).scheduler
    scheduler.set_timesteps(10)
    assert scheduler.timesteps[0] == 999


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"addition_embed_type": None}, "expected a U-Net with addition_embed_type 'text_time', found None"),
        ({"cross_attention_dim": 96}, r"expected unet.cross_attention_dim = .* = 128, found 96"),
        ({"in_channels": 8}, "expected unet.in_channels = vae.latent_channels = 4, found 8"),
        ({"projection_class_embeddings_input_dim": 300}, "= 256, found 300"),
    ],
)
def test_unet_that_does_not_fit_is_named(
    pipeline: StableDiffusionXLPipeline, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    other = build_small(0)
    other.unet = UNet2DConditionModel.from_config(dict(pipeline.unet.config), **change)
    other.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_pipeline(str(tmp_path))


def test_sdxl_config_has_sdxls_parameters() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sdxl_unet_config())
    assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684
