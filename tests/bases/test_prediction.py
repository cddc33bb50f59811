"""What the network is given, and the loss of what it predicts."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fairhuman.data.samples.batch import Batch
from fairhuman.regions.objectives import objective_masks
from fairhuman.train.captions import cut_captions, reader_of
from helpers.base_cases import HEIGHT, MASKED, UNGUIDED, WIDTH, Case, batch_of, draw_of, for_pipeline, for_vae
from helpers.published_losses import PUBLISHED


def test_the_loss_is_that_of_the_published_training_script(case: Case, batch: Batch) -> None:
    draw = draw_of(case, batch)
    ours = case.objectives.residual(batch, draw).square().mean().item()
    pipeline, noise = case.base.pipeline, draw.noise_bchw
    with torch.no_grad():
        theirs = PUBLISHED[case.name](pipeline, batch.pictures_bchw, noise, draw.levels_b, batch.captions).item()
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_the_global_loss_is_the_mean_of_the_residual(case: Case, batch: Batch) -> None:
    draw = case.objectives._draw(batch, case.grid)
    assert case.losses(batch)[0].item() == pytest.approx(
        case.objectives.residual(batch, draw).square().mean().item(), rel=1e-6
    )


def test_the_network_is_called_as_in_sampling(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """All arguments, of the first step of the pipeline and of a prediction at the same level and latents."""
    calls: list[dict[str, Any]] = []
    forward = case.base.network.forward

    def spy(*positional: Any, **named: Any) -> Any:
        names = ("x", "t", "cap_feats")  # of Z-Image, which alone takes positional arguments
        calls.append({**dict(zip(names, positional, strict=False)), **named})
        return forward(*positional, **named)

    monkeypatch.setattr(case.base.network, "forward", spy)
    noise = torch.randn(1, case.base.channels, *case.grid, generator=torch.Generator().manual_seed(5))
    prompt, guidance = "a woman waving", UNGUIDED.get(case.name, 1.0)
    case.base.pipeline.set_progress_bar_config(disable=True)
    found = case.base.arguments(prompt, "", guidance)
    with torch.no_grad():
        latents = for_pipeline(case, noise)
        case.base.pipeline(**found, height=HEIGHT, width=WIDTH, num_inference_steps=2, latents=latents)
        level_1 = case.base.pipeline.scheduler.sigmas[:1]
        case.base.predict(noise, level_1, case.base.texts([prompt]))
    sampling, training = (
        {name: v for name, v in calls[n].items() if not (v is None or isinstance(v, dict))} for n in (0, -1)
    )
    assert sampling.keys() == training.keys()
    if case.name in MASKED:
        read = sampling[MASKED[case.name][-1]][0].bool()
        sampling |= {name: sampling[name][:, read] for name in MASKED[case.name]}
    for name in training:
        assert same(sampling[name], training[name]), name


def same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.allclose(one.float(), other.float(), atol=1e-6)
    return bool(one == other)


def test_captions_of_any_length_predict_alone_as_in_a_batch(case: Case) -> None:
    captions = ["", "a hat", "two hands and a face, " * 200]
    texts = case.base.texts(captions)
    size = (case.base.channels, *case.grid)
    noisy = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    levels = torch.tensor([0.2, 0.5, 0.9])
    with torch.no_grad():
        together = case.base.predict(noisy, levels, texts)
        for row, text in enumerate(texts):
            assert all(bool(tensor.isfinite().all()) for tensor in text.values())
            alone = case.base.predict(noisy[row : row + 1], levels[row : row + 1], [text])
            assert torch.allclose(together[row : row + 1], alone, atol=2e-5 * float(alone.abs().max()))
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_the_longest_caption_has_the_stated_shapes_and_warns_nobody(
    case: Case, capfd: pytest.CaptureFixture[str]
) -> None:
    text = case.base.encode("two hands and a face, " * 200)
    assert capfd.readouterr() == ("", "")
    assert {name: tuple(tensor.shape) for name, tensor in text.items()} == case.base.text_shapes(
        case.base.network.config
    )


def test_the_caption_reaches_the_prediction(case: Case, batch: Batch) -> None:
    draw = draw_of(case, batch)
    noisy = torch.randn(draw.noise_bchw.shape, generator=torch.Generator().manual_seed(1))
    texts = case.base.texts(["a woman in a red shirt", "a man in a blue hat"])
    with torch.no_grad():
        one, other = (case.base.predict(noisy[:1], draw.levels_b[:1], [text]) for text in texts)
    assert float((one - other).norm() / one.norm()) > 1e-3


def test_every_block_is_compiled_where_a_run_asks_for_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module, *_, **__: compiled.append(module))
    case.base.compile_blocks()
    blocks = [module for module in case.base.network.modules() if type(module).__name__.endswith("TransformerBlock")]
    assert compiled == blocks != []


def test_what_is_painted_in_the_picture_is_where_the_loss_sees_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network gives back its tokens, so the prediction is the latents, through packing and back.

    Latents of a picture with and without a painted square differ most within a cell of its mask, and there by more than
    twice the average.
    """
    monkeypatch.setattr(case.base.network, "forward", echo)
    plain, text = batch_of(0).pictures_bchw, case.base.texts(["a hat"])
    noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(2)).clamp(-1, 1)
    for top, left in ((8, 56), (40, 16)):
        painted, mask = plain.clone(), torch.zeros(1, 1, HEIGHT, WIDTH)
        painted[0, :, top : top + 16, left : left + 16] = noise
        mask[..., top : top + 16, left : left + 16] = 1.0
        seen = []
        for pictures in (plain, painted):
            latents, _ = case.base.moments(pictures)
            seen.append(case.base.predict(latents, torch.tensor([0.5]), text))
            assert torch.equal(seen[-1], latents) or torch.equal(-seen[-1], latents)
        difference_hw = (seen[1] - seen[0]).square().sum(dim=1)[0]
        mask_hw = objective_masks(mask, case.base.factor)[0, 1]
        assert mask_hw.shape == difference_hw.shape
        near_hw = nn.functional.max_pool2d(mask_hw[None], 3, stride=1, padding=1)[0]
        assert near_hw.flatten()[int(difference_hw.argmax())] == 1.0
        assert (difference_hw * near_hw).sum() / difference_hw.sum() > 2 * near_hw.mean()


def echo(x: Any = None, *_: Any, hidden_states: Any = None, **__: Any) -> Any:
    return (x if hidden_states is None else hidden_states,)


def test_pictures_come_back_from_latents(case: Case) -> None:
    """`decode` undoes the normalisation of `moments`: what the VAE decodes is its own mean."""
    pictures = batch_of(1).pictures_bchw
    latents, _ = case.base.moments(pictures)
    vae = case.base.vae
    with torch.no_grad():
        decoded = vae.decode(vae.encode(for_vae(case, pictures)).latent_dist.mode()).sample
    expected = decoded.reshape(pictures.shape)
    assert torch.allclose(case.base.decode(latents), expected.clamp(-1, 1), atol=1e-5)


def test_latents_have_the_mean_and_deviation_of_the_posterior(case: Case) -> None:
    """The deviation is scaled like the mean, without the shift: σ of the normalised latent, by a difference."""
    mean, std = case.base.moments(batch_of(2).pictures_bchw)
    vae = case.base.vae
    assert mean.shape == std.shape == (1, case.base.channels, *case.grid)
    assert mean.dtype == std.dtype == torch.float32
    pictures = batch_of(2).pictures_bchw
    with torch.no_grad():
        posterior = vae.encode(for_vae(case, pictures)).latent_dist
    raw_mean, raw_std = (t.reshape(mean.shape) for t in (posterior.mean, posterior.std))
    # Both are affine in the VAE's own: the scale of the mean's differences is that of the deviation.
    scale = std / raw_std
    shift = mean - scale * raw_mean
    patch = case.base.patch
    for values in (scale, shift):  # constant for each channel and place in a patch
        for row in range(patch):
            for column in range(patch):
                part = values[:, :, row::patch, column::patch]
                assert torch.allclose(part, part[..., :1, :1].expand_as(part), rtol=1e-3, atol=1e-4)


def test_tokens_are_counted_as_they_are_read(case: Case) -> None:
    """What a chat template adds counts; where texts keep their length, it is the length of the text."""
    captions = ["", "two hands", "a woman in a red shirt, and a man in a park"]
    lengths = case.base.lengths(captions)
    assert lengths[0] < lengths[1] < lengths[2] <= case.base.limit
    if case.name in ("z_image", "qwen_image", "lumina2"):
        assert lengths == [len(text["embeds"]) for text in case.base.texts(captions)]
    longer = [captions[2] + "a" * count for count in range(case.base.limit)]
    (last,) = [
        text for text, length in zip(longer, case.base.lengths(longer), strict=True) if length == case.base.limit
    ][:1]
    assert cut_captions(case.base, [*captions, last]) == []
    (line,) = cut_captions(case.base, [*captions, last + "aa"])
    assert line.startswith(
        f"1 caption is longer than the {case.base.limit} tokens that the model reads, and cut, as 'a w"
    )


def test_tokenizers_alone_count_alike(case: Case) -> None:
    captions = ["two hands", "a woman in a red shirt"]
    reader = reader_of(str(case.folder))
    assert reader is not None
    assert (reader.lengths(captions), reader.limit) == (case.base.lengths(captions), case.base.limit)
