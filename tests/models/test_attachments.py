"""ControlNets and adapters can be attached to the small SDXL, as its U-Net has the same pattern."""

import pytest
import torch
from diffusers import (
    ControlNetModel,
    StableDiffusionXLAdapterPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
    T2IAdapter,
)
from PIL import Image

from fairhuman.bases.latents import vae_factor
from fairhuman.models.architecture import build_small

SIZE = 64


@pytest.fixture
def pipeline() -> StableDiffusionXLPipeline:
    return build_small(0)


def drawn(pipeline: StableDiffusionXLPipeline, condition: Image.Image | None = None) -> torch.Tensor:
    """Two steps from the same noise."""
    pipeline.set_progress_bar_config(disable=True)
    given = {} if condition is None else {"image": condition}
    return pipeline(
        "a person",
        height=SIZE,
        width=SIZE,
        num_inference_steps=2,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(1),
        output_type="latent",
        **given,
    ).images


def test_a_controlnet_can_be_attached(pipeline: StableDiffusionXLPipeline) -> None:
    controlnet = ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(16, 32, 96))
    stem = controlnet.controlnet_cond_embedding
    assert stem(torch.zeros(1, 3, SIZE, SIZE)).shape == (1, 32, SIZE // vae_factor(pipeline.vae), SIZE // 4)
    steered = StableDiffusionXLControlNetPipeline(**pipeline.components, controlnet=controlnet)
    plain, picture = drawn(pipeline), Image.new("RGB", (SIZE, SIZE), "red")
    assert torch.equal(drawn(steered, picture), plain)  # its output convolutions start at zero
    for block in controlnet.controlnet_down_blocks:
        torch.nn.init.constant_(block.weight, 0.1)
    assert not torch.allclose(drawn(steered, picture), plain)


def test_a_t2i_adapter_can_be_attached(pipeline: StableDiffusionXLPipeline) -> None:
    torch.manual_seed(0)
    adapter = T2IAdapter(
        adapter_type="full_adapter_xl",
        in_channels=3,
        channels=[*pipeline.unet.config.block_out_channels, pipeline.unet.config.block_out_channels[-1]],
        num_res_blocks=2,
        downscale_factor=2 * vae_factor(pipeline.vae),
    )
    features = adapter(torch.zeros(1, 3, SIZE, SIZE))
    latent = SIZE // vae_factor(pipeline.vae)
    assert [tuple(f.shape[1:]) for f in features][-1] == (160, latent // 4, latent // 4)
    steered = StableDiffusionXLAdapterPipeline(**pipeline.components, adapter=adapter)
    picture = Image.new("RGB", (SIZE, SIZE), "red")
    assert not torch.allclose(drawn(steered, picture), drawn(pipeline))
