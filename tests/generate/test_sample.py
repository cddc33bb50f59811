import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UniPCMultistepScheduler
from PIL import Image
from pydantic import ValidationError

from fairhuman import __version__
from fairhuman.bases.base import base_of
from fairhuman.bases.latents import decode_latents
from fairhuman.errors import ModelError, RecipeError
from fairhuman.generate.lora import load_lora
from fairhuman.generate.sample import SampledPicture, check_steps, picture_generator, sample, save_png
from fairhuman.generate.settings import SampleSettings
from fairhuman.generate.unread import READ, unread_lines, unread_of
from fairhuman.models.architecture import build_small
from fairhuman.models.lora import LoraModel
from fairhuman.models.settings import LoraSettings

PROMPTS = ["a person in a red shirt", "", "two hands, waving"]
SMALL = SampleSettings(steps=3, height=32, width=48, images_per_prompt=2, batch_size=1, seed=5)


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    return build_small(0)


@pytest.fixture(scope="module")
def lora_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    model = LoraModel(build_small(0), LoraSettings(rank=4, alpha=6.0), seed=0)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.1)
    model.save(folder)
    return folder


def pixels(pictures: list[SampledPicture]) -> dict[tuple[int, int], np.ndarray]:
    return {(p.prompt_index, p.picture_index): np.asarray(p.image).astype(int) for p in pictures}


def test_a_picture_does_not_depend_on_the_others(pipeline: StableDiffusionXLPipeline) -> None:
    found = pixels(list(sample(pipeline, PROMPTS, SMALL)))
    order = [2, 0]
    other = pixels(list(sample(pipeline, [PROMPTS[i] for i in order], SMALL, indices=order)))
    assert other.keys() < found.keys()
    assert all(np.array_equal(found[key], other[key]) for key in other)
    for batch_size in (2, 6):
        batched = pixels(list(sample(pipeline, PROMPTS, SMALL.model_copy(update={"batch_size": batch_size}))))
        # other kernels for other batch sizes: the same up to one of 255 grey values
        assert all(np.abs(found[key] - batched[key]).max() <= 1 for key in found)
    assert len({picture.tobytes() for picture in found.values()}) == 6


def test_the_vae_takes_the_pictures_of_a_batch_one_by_one() -> None:
    """To the same bits as alone: a float32 batch of SDXL's takes 3 GiB a picture."""
    base, seen = base_of(build_small(0)), list[int]()
    latents = torch.randn(3, base.channels, 6, 8, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([base.decode(one) for one in latents.split(1)])
    for part in (base.vae.encoder, base.vae.decoder):
        part.register_forward_hook(lambda _part, given, _out: seen.append(len(given[0])))
    assert torch.equal(base.decode(latents), alone)
    mean = base.moments(alone)[0]
    assert torch.equal(mean[1:2], base.moments(alone[1:2])[0])
    assert seen == [1] * 7


def test_the_network_leaves_a_device_that_is_too_small_to_decode_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, places, tries = build_small(0), list[str](), list[int]()
    expected = next(sample(pipeline, ["a hat"], SMALL)).image.tobytes()
    monkeypatch.setattr(pipeline.unet, "to", lambda place: places.append(str(place)))

    def decode(*given: Any) -> torch.Tensor:
        tries.append(1)
        if not places:
            raise torch.OutOfMemoryError
        return decode_latents(*given)

    monkeypatch.setattr("fairhuman.generate.sample.decode_latents", decode)
    assert next(sample(pipeline, ["a hat"], SMALL)).image.tobytes() == expected
    assert (places, len(tries)) == (["cpu", "cpu"], 2)


def test_a_device_that_is_too_small_to_draw_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: Callable[..., tuple[int, str, str]]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 7.6 GiB of which 1.2 GiB is "
            "free. Including non-PyTorch memory, this process has"
        )

    monkeypatch.setattr("fairhuman.generate.sample.StableDiffusionXLPipeline.__call__", fail)
    code, _, errors = typed("sample", tmp_path / "out", "--prompt", "a hat", "--steps", 1)
    assert (code, errors) == (
        1,
        "error: CUDA out of memory. Tried to allocate 3.00 GiB. GPU 0 has a total capacity of 7.6 GiB of which 1.2 GiB "
        "is free. What helps: --batch-size 1, --quantize int8, --offload, or smaller pictures by --height and --width"
        "\n",
    )
    assert not (tmp_path / "out").exists()


def test_nothing_is_added_to_a_prompt(pipeline: StableDiffusionXLPipeline) -> None:
    [picture] = sample(pipeline, PROMPTS[:1], SMALL.model_copy(update={"images_per_prompt": 1, "guidance": 4.0}))
    reference = build_small(0)
    reference.scheduler = UniPCMultistepScheduler.from_config(reference.scheduler.config)
    reference.set_progress_bar_config(disable=True)
    latents = reference(
        PROMPTS[0],
        num_inference_steps=3,
        guidance_scale=4.0,
        height=32,
        width=48,
        generator=picture_generator(5, 0, 0),
        output_type="latent",
    ).images
    expected = (decode_latents(reference.vae, latents)[0].permute(1, 2, 0) + 1) * 127.5
    assert np.abs(np.asarray(picture.image) - expected.numpy()).max() <= 0.51
    assert picture.metadata["prompt"] == PROMPTS[0]


def test_a_prompt_that_is_cut_is_told_in_our_words_alone() -> None:
    pipeline, said = build_small(0), io.StringIO()
    long, one = "a person waving, " * 30, SMALL.model_copy(update={"images_per_prompt": 1})
    handler = logging.StreamHandler(said)
    transformers.utils.logging.add_handler(handler)
    try:
        pictures = list(sample(pipeline, [long, "a hat"], one))
    finally:
        transformers.utils.logging.remove_handler(handler)
    assert said.getvalue() == ""
    assert [picture.metadata.get(READ) for picture in pictures] == ["77", None]
    told = "1 of 2 prompts is longer than the 77 tokens that the model reads: the pictures follow the first 77 alone"
    assert unread_lines((picture.metadata["prompt"], picture.metadata) for picture in pictures) == [told]
    assert unread_of(base_of(pipeline), [long, "a hat"]) == [told]
    suffixed = unread_of(base_of(pipeline), ["a hat", "a cap"], suffix=long, negative=long)
    assert suffixed[0].startswith("2 of 2 prompts are longer than the 77 tokens")
    assert suffixed[1:] == ["the negative prompt is longer than the 77 tokens that the model reads"]


def test_pipeline_and_global_generator_stay_as_they_are(pipeline: StableDiffusionXLPipeline) -> None:
    scheduler = pipeline.scheduler
    pipeline.unet.train()
    pipeline.unet.mid_block.eval()
    before = torch.get_rng_state()
    list(sample(pipeline, PROMPTS[:1], SMALL))
    assert torch.equal(torch.get_rng_state(), before)
    assert pipeline.scheduler is scheduler
    assert pipeline.unet.training
    assert not pipeline.unet.mid_block.training
    assert not pipeline.vae.training
    pipeline.unet.eval()


def test_settings_change_the_picture(pipeline: StableDiffusionXLPipeline) -> None:
    changes: list[dict[str, object]] = [{}, {"seed": 6}, {"guidance": 1.0}, {"negative_prompt": "a hat"}, {"steps": 4}]
    found = [next(sample(pipeline, PROMPTS[:1], SMALL.model_copy(update=change))).image.tobytes() for change in changes]
    assert len(set(found)) == len(changes)


def test_default_size_is_the_models(pipeline: StableDiffusionXLPipeline) -> None:
    [picture] = sample(pipeline, ["a hat"], SampleSettings(steps=1))
    assert picture.image.size == (128, 128)


def test_half_precision_model_draws(lora_folder: Path) -> None:
    pipeline = build_small(0)
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.text_encoder_2):
        part.to(torch.bfloat16)
    load_lora(pipeline, lora_folder, fuse=False)
    [picture] = sample(pipeline, ["a hat"], SMALL.model_copy(update={"images_per_prompt": 1}))
    assert picture.image.size == (48, 32)
    assert pipeline.vae.dtype == torch.float32


def test_png_metadata_records_the_settings(tmp_path: Path, lora_folder: Path) -> None:
    own = build_small(0)
    lora = load_lora(own, lora_folder, 0.3)
    settings = SMALL.model_copy(update={"negative_prompt": "größer als π", "images_per_prompt": 1})
    [picture] = sample(own, ["a hat"], settings, model="small", lora=lora)
    path = tmp_path / "new" / "00000-0.png"
    save_png(picture.image, path, picture.metadata)
    with Image.open(path) as image:
        image.load()
        found = dict(image.text)
        assert np.array_equal(np.asarray(image), np.asarray(picture.image))
    assert found == {
        "prompt": "a hat",
        "negative_prompt": "größer als π",
        "seed": "5",
        "prompt_index": "0",
        "picture_index": "0",
        "steps": "3",
        "guidance": "7.5",
        "scheduler": "UniPC",
        "model": "small",
        "lora": str(lora_folder / "pytorch_lora_weights.safetensors"),
        "lora_weight": "0.3",
        "fairhuman": __version__,
    }
    assert [file.name for file in path.parent.iterdir()] == ["00000-0.png"]


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_fused_and_unfused_pictures_agree(lora_folder: Path, weight: float) -> None:
    found = []
    for fuse in (True, False):
        pipeline = build_small(0)
        load_lora(pipeline, lora_folder, weight, fuse)
        assert bool(pipeline.get_list_adapters()) is not fuse
        found.append(np.asarray(next(sample(pipeline, ["a hat"], SMALL)).image).astype(int))
    plain = np.asarray(next(sample(build_small(0), ["a hat"], SMALL)).image).astype(int)
    # (W + BA) x and W x + B (A x) round differently in float32: at most two of 255 grey values after three steps
    assert np.abs(found[0] - found[1]).max() <= 2
    assert np.abs(found[0] - plain).max() > 10


def test_lora_that_does_not_fit_is_named(tmp_path: Path, lora_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere.*expected a file or a folder with pytorch_lora_weights"):
        load_lora(build_small(0), tmp_path / "nowhere")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no tensors here")
    with pytest.raises(ModelError, match=r"broken\.safetensors.*loading failed"):
        load_lora(build_small(0), broken)
    other = build_small(0)
    other.unet = type(other.unet).from_config({**other.unet.config, "block_out_channels": (48, 96, 192)})
    with pytest.raises(
        ModelError, match=r"pytorch_lora_weights\..*': unet .* of \[64, 64\], this model's is \[96, 96\]"
    ):
        load_lora(other, lora_folder)


def test_loading_a_lora_for_the_unet_alone_logs_nothing(lora_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)
    try:
        own = build_small(0)
        load_lora(own, lora_folder)
        assert not caplog.records
        own.load_lora_weights(lora_folder)
        assert len(caplog.records) == 2
    finally:
        logger.removeHandler(caplog.handler)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_lora_weight_is_finite(lora_folder: Path, weight: float) -> None:
    with pytest.raises(RecipeError, match=f"finite number, found {weight}"):
        load_lora(build_small(0), lora_folder, weight)


@pytest.mark.parametrize("part", ["unet", "lora"])
def test_latents_that_are_not_finite_are_not_the_vaes(lora_folder: Path, part: str) -> None:
    own = build_small(0)
    if part == "unet":
        own.unet.conv_out.bias.data.fill_(torch.nan)
    else:
        load_lora(own, lora_folder, 1e37)
    with pytest.raises(
        ModelError, match=r"the U-Net's latents \(torch.float32\): .* aren't finite: not caused by the VAE"
    ):
        next(sample(own, ["a hat"], SMALL))


@pytest.mark.parametrize(
    "spacing", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("leading", "linspace")), "trailing"]
)
def test_steps_that_the_schedule_allows_draw_and_others_are_refused(spacing: str) -> None:
    own = build_small(0)
    own.scheduler = EulerDiscreteScheduler.from_config(
        own.scheduler.config, num_train_timesteps=20, timestep_spacing=spacing
    )
    allowed = []
    for steps in range(1, 31):
        try:
            next(sample(own, ["a hat"], SMALL.model_copy(update={"steps": steps, "height": 16, "width": 16})))
        except RecipeError:
            with pytest.raises(RecipeError, match=f"20 timesteps can't be split into {steps} steps"):
                check_steps(own.scheduler.config, steps)
        else:
            allowed.append(steps)
    assert set(range(1, 10)) <= set(allowed) <= set(range(1, 21))


@pytest.mark.parametrize(
    "wrong", [{"guidance": 0.5}, {"guidance": float("inf")}, {"height": 60}, {"steps": 0}, {"step": 3}]
)
def test_settings_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SampleSettings(**wrong)
