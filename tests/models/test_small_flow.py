"""The small flow base: what it shares with the small SDXL, how it is refused without weights, packed and measured."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from fairhuman import config
from fairhuman.bases import small_flow
from fairhuman.bases.base import base_of
from fairhuman.bases.noising import Ddpm, Flow, Noising
from fairhuman.data.caption.tokens import load_tokenizers
from fairhuman.errors import ModelError
from fairhuman.generate.sample import sample
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.fingerprint import base_fingerprint, encoded_size
from fairhuman.models.locations import largest_side, name_of, side_multiple
from fairhuman.models.sdxl import load_pipeline, scheduler_config
from fairhuman.models.settings import BaseSettings
from fairhuman.synth.people import write_people
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.loop import train
from fairhuman.train.memory import shape_of
from fairhuman.train.model import build_model
from fairhuman.train.preflight import model_finding
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils import shipped
from fairhuman.utils.shipped import FLOW_UNTRAINED, SHIPPED, SMALL, SMALL_FLOW
from helpers.figures import write_figures
from helpers.places import ROOT

TRAINING = ROOT / "training"
PARTS = ("vae", "text_encoder", "text_encoder_2")
CAPTION = "a woman in a red shirt"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"training_{name}", TRAINING / "common" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline(FLOW_UNTRAINED, seed=3)


def test_it_is_known_everywhere_without_being_loaded(
    typed: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    assert name_of(FLOW_UNTRAINED).place == "sd3:SD3"
    assert side_multiple(FLOW_UNTRAINED) == 8
    size = encoded_size(FLOW_UNTRAINED)
    assert (size.factor, size.channels, size.tokens, size.width, size.pooled) == (4, 4, 77, 128, 128)
    schedule = scheduler_config(FLOW_UNTRAINED)
    assert schedule is not None
    assert schedule["_class_name"] == "FlowMatchEulerDiscreteScheduler"
    assert base_fingerprint(FLOW_UNTRAINED, BaseSettings()) is None
    assert load_tokenizers(FLOW_UNTRAINED)[0](CAPTION).input_ids == load_tokenizers(SMALL)[0](CAPTION).input_ids
    assert model_finding(FLOW_UNTRAINED, BaseSettings()).text == "small-flow-untrained, which ships with fairhuman"
    code, said, errors = typed("demo", tmp_path / "out", "--model", FLOW_UNTRAINED, "--dry-run")
    assert code == 0, errors
    assert said.count("model: small-flow-untrained") == 3


def test_its_shape_is_that_of_the_loaded_pipeline(pipeline: Any) -> None:
    shape = shape_of(FLOW_UNTRAINED)
    for part in ("transformer", *PARTS):
        loaded = {name: tensor.shape for name, tensor in getattr(pipeline, part).state_dict().items()}
        assert {name: tensor.shape for name, tensor in getattr(shape, part).state_dict().items()} == loaded
    assert sum(parameter.numel() for parameter in pipeline.transformer.parameters()) < 6e6


def test_only_the_transformer_is_random_and_follows_from_the_seed(pipeline: Any) -> None:
    small, same, other = load_pipeline(SMALL), load_pipeline(FLOW_UNTRAINED, seed=3), load_pipeline(FLOW_UNTRAINED)
    found = {part: getattr(pipeline, part) for part in PARTS}
    found["text_encoder"] = found["text_encoder"].text_model  # which SDXL has without a projection
    for part, network in found.items():
        expected, ours = getattr(small, part).state_dict(), network.state_dict()
        assert expected.keys() == ours.keys()
        assert all(torch.equal(ours[name], tensor) for name, tensor in expected.items()), part
    weights = [one.transformer.transformer_blocks[0].attn.to_q.weight for one in (pipeline, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_it_reads_the_tokens_that_the_small_sdxl_reads(pipeline: Any) -> None:
    ours, theirs = (base_of(one).encode(CAPTION) for one in (pipeline, load_pipeline(SMALL)))
    assert torch.allclose(ours["embeds"], theirs["embeds"], atol=1e-6)
    assert torch.allclose(ours["pooled"][64:], theirs["pooled"], atol=1e-6)


def test_a_fresh_transformer_predicts_nearly_nothing_and_every_layer_has_a_gradient(pipeline: Any) -> None:
    base = base_of(pipeline)
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    predicted = base.predict(noisy, torch.tensor([0.5]), base.texts([CAPTION]))
    assert 1e-3 < float(predicted.detach().std()) < 0.5
    gradients = torch.autograd.grad(predicted.square().sum(), list(base.network.parameters()))
    names = [name for name, _ in base.network.named_parameters()]
    idle = {name for name, gradient in zip(names, gradients, strict=True) if not bool(gradient.any())}
    last = f"transformer_blocks.{len(base.network.transformer_blocks) - 1}.attn"  # nothing reads the text after it
    assert idle == {f"{last}.add_q_proj.weight", f"{last}.add_q_proj.bias", f"{last}.norm_added_q.weight"}


def test_a_trained_pipeline_is_packed_without_what_is_shared(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = script("pack")
    pipeline.save_pretrained(tmp_path / "trained")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "README.md").write_text("card")
    pack.pack(tmp_path / "trained", tmp_path / "packed")
    files = {file.relative_to(tmp_path / "packed").as_posix() for file in (tmp_path / "packed").rglob("*.*")}
    own = {"README.md", "model_index.json", "scheduler/scheduler_config.json", "transformer/config.json"}
    assert files == {*own, "transformer/diffusion_pytorch_model.safetensors"}
    for place in (shipped, small_flow):
        monkeypatch.setattr(place, "SMALL_FLOW_FOLDER", tmp_path / "packed")
    monkeypatch.setitem(SHIPPED, SMALL_FLOW, tmp_path / "packed")
    loaded = load_pipeline(SMALL_FLOW)
    noisy = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = (
            base.predict(noisy, torch.tensor([0.5]), base.texts([CAPTION])) for base in map(base_of, (pipeline, loaded))
        )
    assert float((found - expected).norm() / expected.norm()) < 0.01  # rounded to float16
    assert base_fingerprint(SMALL_FLOW, BaseSettings()) is not None
    assert side_multiple(SMALL_FLOW) == 8


def test_a_pipeline_with_another_vae_is_not_packed(pipeline: Any, tmp_path: Path) -> None:
    vae = pipeline.vae
    try:
        pipeline.vae = load_pipeline("small-untrained").vae
        pipeline.vae.register_to_config(shift_factor=0.0)
        pipeline.save_pretrained(tmp_path / "trained")
    finally:
        pipeline.vae = vae
    with pytest.raises(SystemExit, match="its vae must be that of the small SDXL in the package"):
        script("pack").pack(tmp_path / "trained", tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize(
    "noising", [*(Ddpm(DDPMScheduler(prediction_type=kind)) for kind in ("epsilon", "v_prediction", "sample")), Flow()]
)
def test_a_right_prediction_means_the_picture_whatever_is_predicted(noising: Noising) -> None:
    curve, generator = script("curve"), torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    for log_snr in curve.LOG_SNRS:
        level = curve.level_at(noising, log_snr)[None]
        assert float(noising.log_snr(level)) == pytest.approx(log_snr, abs=0.05)
        noisy, target = noising.add(latents, noise, level), noising.target(latents, noise, level)
        assert torch.allclose(curve.clean(noising, noisy, target, level), latents, atol=1e-4)


def test_pictures_without_positions_are_refused(pipeline: Any) -> None:
    assert base_of(pipeline).largest == 256
    settings = SampleSettings(height=264, width=128, steps=1)
    with pytest.raises(ModelError, match=r"positions for sides of at most 256 pixels, found \(264, 128\)"):
        next(sample(pipeline, ["a hat"], settings))


def test_buckets_for_all_pictures_have_positions(pipeline: Any) -> None:
    values: dict[str, Any] = {"model": FLOW_UNTRAINED, "data": "people", "out": "run", "resolution": 128, "steps": 1}
    found = config.build(TrainRecipe, values)
    assert max(map(max, found.sizes)) == base_of(pipeline).largest == largest_side(FLOW_UNTRAINED) == 256
    assert len(found.sizes) > 20
    assert max(map(max, config.build(TrainRecipe, {**values, "model": SMALL}).sizes)) > 256
    wide = config.build(TrainRecipe, {**values, "view": {"bucket_aspect": 5.0}})
    with pytest.raises(ModelError, match=r"view.bucket_aspect: .* at most 256 pixels, found \(56, 264\)"):
        build_model(wide, torch.device("cpu"))


def test_losses_of_different_bases_are_not_compared(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    write_figures(tmp_path / "people", 2, 32, seed=1)
    models = ("--model", "base=small", "--model", f"flow={FLOW_UNTRAINED}")
    code, _, errors = typed("losses", tmp_path / "people", *models, "resolution=32")
    assert code == 1
    assert "models 'base' and 'flow' are SDXL and Stable Diffusion 3.5, whose losses measure" in " ".join(
        errors.split()
    )


def test_the_shipped_weights_know_pictures_that_random_ones_dont(pipeline: Any, tmp_path: Path) -> None:
    """Of people like those that they were trained on: of drawn figures they don't at much noise."""
    write_people(tmp_path, SynthSettings(count=2, size=128, seed=7), workers=1)
    curve = script("curve")
    pictures = curve.held_out(tmp_path, 2, 128)
    trained, random = (
        np.array(curve.errors_of(base_of(one), pictures)) for one in (load_pipeline(SMALL_FLOW), pipeline)
    )
    assert (trained < 0.3 * random).all()


def test_its_recipes_train_and_the_curve_has_a_point_for_each_checkpoint(tmp_path: Path) -> None:
    write_figures(tmp_path / "people", 8, 32, seed=1)
    quick = ("batch_size=2", "resolution=32", "validation.every=0", "preview.count=0", "checkpoint_every=1", "steps=2")
    where = (f"data={tmp_path / 'people'}", f"cache.folder={tmp_path / 'cache'}", "precision=fp32")
    runs = [tmp_path / name for name in ("base", "decay")]
    for run, name, start in zip(runs, ("base", "base-decay"), ((), (f"model={runs[0] / 'model'}",)), strict=True):
        given = (f"out={run}", *where, *start, *quick)
        recipe = config.load(TrainRecipe, TRAINING / "small_flow" / f"{name}.yaml", given)
        assert train(recipe).finished
    assert (recipe.learning_rate, recipe.schedule.name, recipe.ema.decay) == (1e-3, "linear", 0.999)
    curve = script("curve")
    points = list(curve.measure([str(run) for run in runs], curve.held_out(tmp_path / "people", 2, 32)))
    assert [(point.step, point.pictures) for point in points] == [(1, 2), (2, 4), (3, 6), (4, 8)]
    hours = [point.core_hours for point in points]
    assert hours == sorted(hours)
    assert hours[0] > 0
    assert all(0 < error < 10 for point in points for error in point.errors)
    curve.draw(points, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000
