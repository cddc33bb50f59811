from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairhuman.data.samples.batch import Batch
from fairhuman.errors import ModelError
from fairhuman.models.architecture import build_small
from fairhuman.models.full import FullModel
from fairhuman.models.sdxl import load_pipeline

MakeBatch = Callable[[int], tuple[Batch, Tensor, Tensor]]


def gradients(model: FullModel, inputs: tuple[Batch, Tensor, Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(model.predict(*inputs).square().mean(), model.trainable_parameters()))


def test_every_unet_weight_is_trained_and_nothing_else(make_batch: MakeBatch) -> None:
    pipeline = build_small(0)
    model = FullModel(pipeline)
    parameters = model.trainable_parameters()
    assert isinstance(parameters, list)
    assert {id(p) for p in parameters} == {id(p) for p in pipeline.unet.parameters()}
    model.predict(*make_batch(2)).square().mean().backward()
    assert all(p.grad is not None for p in parameters)
    assert all(p.grad is None for p in pipeline.text_encoder.parameters())


def test_text_encoders_are_trained_where_a_gradient_reaches(make_batch: MakeBatch) -> None:
    pipeline = build_small(0)
    model = FullModel(pipeline, text_encoders=True)
    found = dict(zip(model.trainable_state(), gradients(model, make_batch(2)), strict=True))
    for part in ("unet.", "text_encoder.", "text_encoder_2."):
        assert any(g.abs().max() > 0 for name, g in found.items() if name.startswith(part))
    trained = {name for name in found if name.startswith("text_encoder.")}
    every = {f"text_encoder.{name}" for name, _ in pipeline.text_encoder.named_parameters()}
    assert trained < every
    assert all("layers.1." in name or "final_layer_norm" in name for name in every - trained)


def test_half_precision_weights_are_trained_in_float32(make_batch: MakeBatch) -> None:
    pipeline = build_small(0)
    pipeline.unet.bfloat16()
    model = FullModel(pipeline)
    assert {p.dtype for p in model.trainable_parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        assert model.predict(*make_batch(2)).dtype == torch.float32


def test_gradient_checkpointing_changes_no_gradient(make_batch: MakeBatch) -> None:
    inputs = make_batch(2)
    plain = gradients(FullModel(build_small(0)), inputs)
    checkpointed = gradients(FullModel(build_small(0), gradient_checkpointing=True), inputs)
    for ours, theirs in zip(plain, checkpointed, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_state_goes_back_exactly() -> None:
    trained, fresh = FullModel(build_small(0)), FullModel(build_small(1))
    state = trained.trainable_state()
    fresh.load_trainable_state(state)
    assert all(
        torch.equal(a, b) for a, b in zip(trained.trainable_parameters(), fresh.trainable_parameters(), strict=True)
    )
    name = next(iter(state))
    with pytest.raises(ModelError, match=rf"'{name}' is missing in the state"):
        fresh.load_trainable_state({key: value for key, value in state.items() if key != name})
    with pytest.raises(ModelError, match=r"must have shape .* found \[1\]"):
        fresh.load_trainable_state({**state, name: torch.zeros(1)})


def test_saved_pipeline_loads_and_predicts_the_same(make_batch: MakeBatch, tmp_path: Path) -> None:
    inputs, folder = make_batch(2), tmp_path / "run" / "pipeline"
    model = FullModel(build_small(0))
    model.save(folder)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(0.01)
        expected = model.predict(*inputs)
    model.save(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["pipeline"]
    with torch.no_grad():
        assert torch.equal(FullModel(load_pipeline(str(folder))).predict(*inputs), expected)
