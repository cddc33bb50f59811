"""ControlNet and T2I-adapter with a frozen U-Net: initialisation, checks, precision, loading by diffusers."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionXLPipeline, T2IAdapter, UNet2DConditionModel
from pydantic import ValidationError
from torch import Tensor

from fairhuman.bases.base import base_of
from fairhuman.data.samples.batch import Batch
from fairhuman.errors import ModelError
from fairhuman.models.architecture import build_small, sdxl_unet_config
from fairhuman.models.control import Control, ControlModel, channel_count
from fairhuman.models.controlnet import ControlNet, stem_channels
from fairhuman.models.settings import ControlSettings
from fairhuman.models.t2i_adapter import Adapter

MakeBatch = Callable[[int], tuple[Batch, Tensor, Tensor]]
Inputs = tuple[Batch, Tensor, Tensor]
KINDS: list[type[Control]] = [ControlNet, Adapter]
both = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def with_conditions(inputs: Inputs, *names: str) -> Inputs:
    batch, latents, steps = inputs
    generator = torch.Generator().manual_seed(4)
    drawn = {name: torch.rand(len(steps), channel_count([name]), 64, 64, generator=generator) for name in names}
    return replace(batch, conditions=drawn), latents, steps


def trained(
    kind: type[Control], *conditions: str, dtype: torch.dtype = torch.float32, checkpointing: bool = False
) -> ControlModel:
    """One whose zero layers aren't zero any more, as after training."""
    pipeline = build_small(0)
    pipeline.unet.to(dtype)
    model = ControlModel(pipeline, kind.new(pipeline, conditions or ("pose",), seed=1), checkpointing)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def predict(model: ControlModel, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return model.predict(*inputs)


def test_a_new_controlnet_changes_nothing_and_starts_from_the_unet(make_batch: MakeBatch) -> None:
    inputs = with_conditions(make_batch(2), "pose")
    pipeline = build_small(0)
    with torch.no_grad():
        plain = base_of(pipeline).prediction(*inputs)
    model = ControlModel(pipeline, ControlNet.new(pipeline, ("pose",), seed=0))
    assert torch.equal(predict(model, inputs), plain)
    weights = model.trainable_state()
    for name, tensor in pipeline.unet.state_dict().items():
        if name.startswith(("down_blocks", "mid_block", "time_embedding", "add_embedding")):
            assert torch.equal(weights[name], tensor), name


@both
def test_the_start_depends_on_the_seed_alone(kind: type[Control]) -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    pipeline = build_small(0)
    first, same, other = (kind.new(pipeline, ("pose",), seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@both
def test_trainable_parameters_is_a_list_of_all_weights(kind: type[Control]) -> None:
    model = trained(kind)
    parameters = model.trainable_parameters()
    assert isinstance(parameters, list)
    assert [id(p) for p in parameters] == [id(p) for p in model.trainable_parameters()]
    assert len(parameters) == len(model.control.network.state_dict())
    assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
    parts = (model.pipeline.unet, model.pipeline.vae, model.pipeline.text_encoder, model.pipeline.text_encoder_2)
    assert not any(p.requires_grad for part in parts for p in part.parameters())


@both
@pytest.mark.parametrize("conditions", [("pose",), ("depth",), ("pose", "depth"), ("depth", "pose")])
def test_each_condition_reaches_the_prediction_of_its_own_sample(
    make_batch: MakeBatch, kind: type[Control], conditions: Sequence[str]
) -> None:
    model, inputs = trained(kind, *conditions), with_conditions(make_batch(2), *conditions)
    assert model.control.channels == channel_count(conditions)
    plain = predict(model, inputs)
    for name in conditions:
        changed = {**inputs[0].conditions, name: inputs[0].conditions[name] * torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)}
        found = predict(model, (replace(inputs[0], conditions=changed), *inputs[1:]))
        assert torch.allclose(found[0], plain[0], atol=1e-5)
        assert (found[1] - plain[1]).abs().max() > 1e-3, name


@both
def test_a_condition_that_the_batch_lacks_is_named(make_batch: MakeBatch, kind: type[Control]) -> None:
    model = trained(kind, "pose", "depth")
    with pytest.raises(ModelError, match="needs pose, depth, the batch has no depth"):
        predict(model, with_conditions(make_batch(1), "pose"))


def test_a_controlnet_reads_the_true_time_ids(make_batch: MakeBatch) -> None:
    batch, latents, steps = with_conditions(make_batch(2), "pose")
    model = trained(ControlNet)
    moved = batch.time_ids_b6.clone()
    moved[1, 2:4] += 7
    seen: list[Tensor] = []
    model.control.network.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    for time_ids in (batch.time_ids_b6, moved):
        predict(model, (replace(batch, time_ids_b6=time_ids), latents, steps))
    assert torch.equal(seen[0], batch.time_ids_b6)
    assert torch.equal(seen[1], moved)

    def residual(time_ids: Tensor) -> Tensor:
        given = {
            "encoder_hidden_states": torch.zeros(2, 77, 128),
            "added_cond_kwargs": {"text_embeds": torch.zeros(2, 64), "time_ids": time_ids},
        }
        picture = model.control.picture(batch.conditions)
        with torch.no_grad():
            found = model.control.residuals(latents, steps, given, picture)["mid_block_additional_residual"]
        assert isinstance(found, Tensor)
        return found

    assert torch.equal(residual(batch.time_ids_b6)[0], residual(moved)[0])
    assert not torch.allclose(residual(batch.time_ids_b6)[1], residual(moved)[1], atol=1e-4)


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_is_steered_in_float32(
    make_batch: MakeBatch, kind: type[Control], dtype: torch.dtype
) -> None:
    model = trained(kind, dtype=dtype)
    for autocast in (False, True):
        with torch.autocast("cpu", dtype, enabled=autocast):
            prediction = model.predict(*with_conditions(make_batch(2), "pose"))
        assert prediction.dtype == torch.float32
        gradients = torch.autograd.grad(prediction.square().mean(), model.trainable_parameters())
        assert all(g.dtype == torch.float32 and bool(g.isfinite().all()) for g in gradients)
        assert any(bool(g.any()) for g in gradients)


@both
def test_gradient_checkpointing_changes_no_gradient(make_batch: MakeBatch, kind: type[Control]) -> None:
    found = []
    for checkpointing in (False, True):
        model = trained(kind, checkpointing=checkpointing)
        assert model.pipeline.unet.is_gradient_checkpointing is checkpointing
        loss = model.predict(*with_conditions(make_batch(2), "pose")).square().mean()
        found.append(torch.autograd.grad(loss, model.trainable_parameters()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_the_small_adapters_features_are_those_of_the_unets_blocks() -> None:
    pipeline = build_small(0)
    features = Adapter.new(pipeline, ("pose",), 0).network(torch.zeros(1, 3, 128, 128))
    assert [tuple(feature.shape[1:]) for feature in features] == [(32, 16, 16), (64, 16, 16), (160, 8, 8), (160, 8, 8)]


def test_a_controlnets_stem_halves_as_often_as_the_vae() -> None:
    assert (stem_channels(4), stem_channels(8)) == ((16, 32, 96), (16, 32, 96, 256))
    with pytest.raises(ModelError, match="1, 2, 4 or 8, found 16"):
        stem_channels(16)


def sdxl_on_meta() -> StableDiffusionXLPipeline:
    pipeline = build_small(0)
    with torch.device("meta"):
        pipeline.unet = UNet2DConditionModel(**sdxl_unet_config())
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        pipeline.vae = AutoencoderKL(**blocks, block_out_channels=(128, 256, 512, 512), layers_per_block=2)
    return pipeline


@pytest.mark.parametrize(("kind", "millions"), [(ControlNet, 1251), (Adapter, 79)])
def test_sdxls_own_size(kind: type[Control], millions: int) -> None:
    pipeline = sdxl_on_meta()
    with torch.device("meta"):
        network = kind.new(pipeline, ("pose",), 0).network
    assert round(sum(p.numel() for p in network.parameters()) / 1e6) == millions


@both
def test_states_are_put_back_exactly(kind: type[Control]) -> None:
    model, other = trained(kind), ControlModel(build_small(0), kind.new(build_small(0), ("pose",), 5))
    other.load_trainable_state(model.trainable_state())
    ours, theirs = model.trainable_state(), other.trainable_state()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@both
def test_a_saved_folder_is_what_diffusers_and_we_load(tmp_path: Path, kind: type[Control]) -> None:
    model = trained(kind, "depth", "pose")
    model.save(tmp_path / "saved")
    weights = model.control.network.state_dict()
    plain = (ControlNetModel if kind is ControlNet else T2IAdapter).from_pretrained(tmp_path / "saved")
    ours = kind.load(str(tmp_path / "saved"), model.pipeline, None)
    for found in (plain.state_dict(), ours.network.state_dict()):
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert ours.conditions == ("depth", "pose")
    stated = json.loads((tmp_path / "saved" / "conditions.json").read_text())
    assert list(stated["conditions"].items()) == [("depth", 1), ("pose", 3)]
    with pytest.raises(ModelError, match="is for depth, pose, not pose, depth"):
        kind.load(str(tmp_path / "saved"), model.pipeline, ("pose", "depth"))


def test_a_depth_controlnet_of_three_channels_is_given_grey(tmp_path: Path) -> None:
    pipeline = build_small(0)
    ControlNet.new(pipeline, ("pose",), 0).network.save_pretrained(tmp_path)
    loaded = ControlNet.load(str(tmp_path), pipeline, ("depth",))
    depth = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded.picture({"depth": depth}), torch.cat([depth] * 3, dim=1))
    with pytest.raises(ModelError, match="doesn't state its conditions"):
        ControlNet.load(str(tmp_path), pipeline, None)
    with pytest.raises(ModelError, match="has 3 input channels, pose and depth need 4"):
        ControlNet.load(str(tmp_path), pipeline, ("pose", "depth"))


def config(tmp_path: Path, kind: str, **values: object) -> str:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": kind, **values}))
    return str(tmp_path)


SMALL = {
    "addition_embed_type": "text_time",
    "in_channels": 4,
    "block_out_channels": [32, 64, 160],
    "layers_per_block": 1,
    "cross_attention_dim": 128,
    "addition_time_embed_dim": 32,
    "projection_class_embeddings_input_dim": 256,
    "conditioning_embedding_out_channels": [16, 32, 96],
}


@pytest.mark.parametrize(
    ("kind", "name", "values", "message"),
    [
        (ControlNet, "ControlNetModel", {"cross_attention_dim": 768}, r"Stable Diffusion 1 \(cross_attention_dim 768"),
        (ControlNet, "ControlNetModel", {"cross_attention_dim": 1024}, "Stable Diffusion 2"),
        (
            ControlNet,
            "ControlNetModel",
            {**SMALL, "block_out_channels": [320, 640, 1280]},
            r"block_out_channels \[320, 640, 1280\], this U-Net \[32, 64, 160\]",
        ),
        (ControlNet, "ControlNetModel", {**SMALL, "conditioning_embedding_out_channels": None}, "by 8 .*by 4"),
        (ControlNet, "ControlNetModel", SMALL, "its weights can't be loaded"),
        (ControlNet, "ControlNetUnionModel", SMALL, "expected a ControlNetModel, found ControlNetUnionModel"),
        (Adapter, "T2IAdapter", {"adapter_type": "full_adapter"}, "for Stable Diffusion 1"),
        (
            Adapter,
            "T2IAdapter",
            {"adapter_type": "full_adapter_xl", "channels": [320, 640, 1280, 1280]},
            r"has channels \[320.*needs \[32, 64, 160, 160\]",
        ),
        (
            Adapter,
            "T2IAdapter",
            {"adapter_type": "full_adapter_xl", "channels": [32, 64, 160, 160], "downscale_factor": 16},
            "downscale_factor 16, this VAE needs 8",
        ),
        (Adapter, "ControlNetModel", {}, "expected a T2IAdapter, found ControlNetModel"),
    ],
)
def test_a_checkpoint_for_another_model_is_named_and_refused(
    tmp_path: Path, kind: type[Control], name: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        kind.load(config(tmp_path, name, **values), build_small(0), ("pose",))


@both
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, kind: type[Control]) -> None:
    for place in (str(tmp_path / "nowhere"), "nowhere"):  # the hub is asked for OWNER/NAME alone
        with pytest.raises(ModelError, match=r"nowhere.*: expected a folder or hub id of a .*, found no such folder"):
            kind.load(place, build_small(0), ("pose",))


@pytest.mark.parametrize("conditions", [[], ["pose", "pose"], ["edges"]])
def test_other_conditions_are_refused(conditions: list[str]) -> None:
    with pytest.raises(ValidationError):
        ControlSettings.model_validate({"conditions": conditions})
