"""What diffusers' training scripts compute for each base, told again from `examples/dreambooth` with weighting `none`.

From pictures and captions to the loss, without a line of `fairhuman`: the latents' mode, noise at given levels, the
network's prediction and the mean squared error to ε - x.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor


def sd3(
    pipeline: Any, pictures: Tensor, noise: Tensor, sigmas_b: Tensor, captions: Sequence[str], t5_tokens: int = 256
) -> Tensor:
    """`train_dreambooth_lora_sd3.py`."""
    embeds, _, pooled, _ = pipeline.encode_prompt(
        list(captions), None, None, do_classifier_free_guidance=False, max_sequence_length=t5_tokens
    )
    latents = _scaled(pipeline.vae, pictures)
    prediction = pipeline.transformer(
        hidden_states=_noisy(latents, noise, sigmas_b),
        timestep=sigmas_b * 1000,
        encoder_hidden_states=embeds,
        pooled_projections=pooled,
        return_dict=False,
    )[0]
    return _loss(prediction, noise - latents)


def z_image(pipeline: Any, pictures: Tensor, noise: Tensor, sigmas_b: Tensor, captions: Sequence[str]) -> Tensor:
    """`train_dreambooth_lora_z_image.py`."""
    embeds, _ = pipeline.encode_prompt(list(captions), do_classifier_free_guidance=False, max_sequence_length=512)
    latents = _scaled(pipeline.vae, pictures)
    noisy = list(_noisy(latents, noise, sigmas_b).unsqueeze(2).unbind(dim=0))
    predictions = pipeline.transformer(noisy, (1000 - sigmas_b * 1000) / 1000, embeds, return_dict=False)[0]
    return _loss(-torch.stack(predictions, dim=0).squeeze(2), noise - latents)


def flux2(pipeline: Any, pictures: Tensor, noise: Tensor, sigmas_b: Tensor, captions: Sequence[str]) -> Tensor:
    """`train_dreambooth_lora_flux2_klein.py`, which works on patches: 4C channels on half of the grid."""
    kind, vae = type(pipeline), pipeline.vae
    embeds, text_ids = pipeline.encode_prompt(list(captions), max_sequence_length=512)
    mean, variance = vae.bn.running_mean.view(1, -1, 1, 1), vae.bn.running_var.view(1, -1, 1, 1)
    patches = kind._patchify_latents(vae.encode(pictures).latent_dist.mode())
    patches = (patches - mean) / torch.sqrt(variance + vae.config.batch_norm_eps)
    noise = kind._patchify_latents(noise)
    picture_ids = kind._prepare_latent_ids(patches)
    prediction = pipeline.transformer(
        hidden_states=kind._pack_latents(_noisy(patches, noise, sigmas_b)),
        timestep=sigmas_b,
        guidance=None,
        encoder_hidden_states=embeds,
        txt_ids=text_ids,
        img_ids=picture_ids,
        return_dict=False,
    )[0]
    return _loss(kind._unpack_latents_with_ids(prediction, picture_ids), noise - patches)


def flux(pipeline: Any, pictures: Tensor, noise: Tensor, sigmas_b: Tensor, captions: Sequence[str]) -> Tensor:
    """`train_dreambooth_lora_flux.py` with `--guidance_scale=1`."""
    kind, latents = type(pipeline), _scaled(pipeline.vae, pictures)
    embeds, pooled, text_ids = pipeline.encode_prompt(list(captions), None, max_sequence_length=512)
    b, c, h, w = latents.shape
    prediction = pipeline.transformer(
        hidden_states=kind._pack_latents(_noisy(latents, noise, sigmas_b), b, c, h, w),
        timestep=sigmas_b,
        guidance=torch.tensor([1.0]).expand(b),
        pooled_projections=pooled,
        encoder_hidden_states=embeds,
        txt_ids=text_ids,
        img_ids=kind._prepare_latent_image_ids(b, h // 2, w // 2, latents.device, latents.dtype),
        return_dict=False,
    )[0]
    return _loss(kind._unpack_latents(prediction, 8 * h, 8 * w, 8), noise - latents)


def qwen_image(pipeline: Any, pictures: Tensor, noise: Tensor, sigmas_b: Tensor, captions: Sequence[str]) -> Tensor:
    """`train_dreambooth_lora_qwen_image.py`, on latents of a video of one frame [B, C, 1, h, w]."""
    kind, vae = type(pipeline), pipeline.vae
    embeds, mask = pipeline.encode_prompt(list(captions), max_sequence_length=512)
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    latents = (vae.encode(pictures.unsqueeze(2)).latent_dist.mode() - mean) * (1.0 / std)
    noise = noise.unsqueeze(2)
    b, c, _, h, w = latents.shape
    prediction = pipeline.transformer(
        hidden_states=kind._pack_latents(_noisy(latents, noise, sigmas_b).permute(0, 2, 1, 3, 4), b, c, h, w),
        encoder_hidden_states=embeds,
        encoder_hidden_states_mask=mask,
        timestep=sigmas_b,
        img_shapes=[(1, h // 2, w // 2)] * b,
        return_dict=False,
    )[0]
    return _loss(kind._unpack_latents(prediction, 8 * h, 8 * w, 8), noise - latents)


def lumina2(pipeline: Any, pictures: Tensor, noise: Tensor, sigmas_b: Tensor, captions: Sequence[str]) -> Tensor:
    """`train_dreambooth_lora_lumina2.py`, which counts σ from the noise, with the pipeline's system prompt.

    A dropped caption is encoded without it, as sampling's unconditional prediction.
    """
    prompts = [f"{pipeline.system_prompt} <Prompt Start> {caption}" if caption else "" for caption in captions]
    embeds, mask = pipeline._get_gemma_prompt_embeds(prompts, max_sequence_length=256)
    latents = _scaled(pipeline.vae, pictures)
    prediction = pipeline.transformer(
        hidden_states=_noisy(latents, noise, sigmas_b),
        encoder_hidden_states=embeds,
        encoder_attention_mask=mask,
        timestep=1 - sigmas_b,
        return_dict=False,
    )[0]
    return _loss(prediction, latents - noise)


PUBLISHED: dict[str, Callable[..., Tensor]] = {
    "sd3": sd3,
    "small_flow": partial(sd3, t5_tokens=0),
    "z_image": z_image,
    "flux2": flux2,
    "flux": flux,
    "qwen_image": qwen_image,
    "lumina2": lumina2,
}


def _scaled(vae: Any, pictures: Tensor) -> Tensor:
    latents: Tensor = vae.encode(pictures).latent_dist.mode()
    return (latents - vae.config.shift_factor) * vae.config.scaling_factor


def _noisy(latents: Tensor, noise: Tensor, sigmas_b: Tensor) -> Tensor:
    sigmas = sigmas_b.view(-1, *[1] * (latents.ndim - 1))
    return (1.0 - sigmas) * latents + sigmas * noise


def _loss(prediction: Tensor, target: Tensor) -> Tensor:
    return torch.mean(((prediction.float() - target.float()) ** 2).reshape(target.shape[0], -1), 1).mean()
