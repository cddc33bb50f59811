"""MoLE: its formula, stages, file and number of parameters."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fairhuman.bases.base import base_of
from fairhuman.compare.paper.cost import mole_parameters
from fairhuman.data.samples.batch import Batch
from fairhuman.errors import ModelError
from fairhuman.models.architecture import build_small, sdxl_unet_config
from fairhuman.models.lora import LoraModel
from fairhuman.models.mole import MOLE_FILE, MoleModel, load_mole, read_mole_header
from fairhuman.models.mole_linear import MoleLinear, add_mole, mole_layers
from fairhuman.models.settings import Alphas, Expert, LoraSettings, MoleSettings

MakeBatch = Callable[[int], tuple[Batch, Tensor, Tensor]]
Inputs = tuple[Batch, Tensor, Tensor]
EXPERTS = {"face": Expert(3, 6.0), "hand": Expert(2, 1.0)}
RANK = 3
ALPHAS = {"face": 2.0, "hand": 4.0}  # small, so that no gate is saturated


def shaken(parameters: list[nn.Parameter], seed: int = 2) -> None:
    """Perturb the weights, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def settings(stage: str, folder: Path | None = None) -> MoleSettings:
    starts = {"start_face": folder / "face", "start_hand": folder / "hand"} if folder and stage == "gates" else {}
    return MoleSettings.model_validate({"stage": stage, "rank": RANK, "alphas": ALPHAS, **starts})


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained expert of each stage."""
    folder = tmp_path_factory.mktemp("experts")
    for number, stage in enumerate(("face", "hand")):
        model = MoleModel(build_small(0), settings(stage), seed=number)
        shaken(model.trainable_parameters(), seed=number)
        model.save(folder / stage)
    return folder


def gated(experts: Path, dtype: torch.dtype = torch.float32, checkpointing: bool = False, seed: int = 0) -> MoleModel:
    pipeline = build_small(0)
    pipeline.unet.to(dtype)
    return MoleModel(pipeline, settings("gates", experts), seed, checkpointing)


def predict(pipeline: StableDiffusionXLPipeline, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        return base_of(pipeline).prediction(*inputs)


def test_the_output_follows_the_formula() -> None:
    torch.manual_seed(0)
    layer = MoleLinear(nn.Linear(5, 4), EXPERTS, gated=True).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 7, 5, dtype=torch.float64)
    found = layer(x)
    weights = dict(layer.named_parameters())

    def gate(value: Tensor) -> Tensor:
        return 1 / (1 + (-value).exp())

    for picture in range(2):
        for token in range(7):
            own = x[picture, token]
            y = weights["base.weight"] @ own + weights["base.bias"]
            local = gate(weights["token_gate.weight"] @ own + weights["token_gate.bias"])
            for number, (name, alpha_by_rank) in enumerate((("face", 2.0), ("hand", 0.5))):
                down, up = weights[f"down.{name}.weight"], weights[f"up.{name}.weight"]
                said = [alpha_by_rank * up @ (down @ other) for other in x[picture]]
                pooled = torch.stack(said).sum(dim=0) / 7
                whole = weights[f"picture_gates.{name}.weight"][0] @ pooled + weights[f"picture_gates.{name}.bias"][0]
                y = y + said[token] * local[number] * gate(whole)
            torch.testing.assert_close(found[picture, token], y, rtol=1e-12, atol=1e-12)


def test_an_expert_alone_is_a_plain_lora() -> None:
    torch.manual_seed(0)
    layer = MoleLinear(nn.Linear(5, 4), {"hand": Expert(2, 8.0)}, gated=False)
    nn.init.normal_(layer.up["hand"].weight)
    x = torch.randn(2, 7, 5)
    merged = layer.base.weight + 4.0 * layer.up["hand"].weight @ layer.down["hand"].weight
    torch.testing.assert_close(layer(x), nn.functional.linear(x, merged, layer.base.bias))
    assert {name for name, _ in layer.named_children() if "gate" in name} == {"picture_gates"}
    assert not list(layer.picture_gates.parameters())


def test_pictures_do_not_mix_and_an_input_without_tokens_is_refused() -> None:
    torch.manual_seed(0)
    layer = MoleLinear(nn.Linear(5, 4), EXPERTS, gated=True)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 7, 5)
    torch.testing.assert_close(layer(x)[1:2], layer(x[1:2]))
    with pytest.raises(ModelError, match=r"\[batch, tokens, width\], found \[7, 5\]"):
        layer(x[0])


@pytest.mark.parametrize("is_gated", [False, True])
def test_with_zero_experts_it_is_the_base_bit_for_bit(make_batch: MakeBatch, is_gated: bool) -> None:
    inputs, pipeline = make_batch(2), build_small(0)
    plain = predict(pipeline, inputs)
    count = len(mole_layers(pipeline.unet))
    add_mole(pipeline.unet, EXPERTS, is_gated, seed=1)
    assert sum(isinstance(module, MoleLinear) for module in pipeline.unet.modules()) == count > 0
    assert torch.equal(predict(pipeline, inputs), plain)


def test_the_start_depends_on_the_seed_alone() -> None:
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first, same, other = (add_mole(build_small(0).unet, EXPERTS, True, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_its_parameters_are_those_that_are_counted() -> None:
    unet = build_small(0).unet
    expected = mole_parameters(unet, 5)
    added = add_mole(unet, dict.fromkeys(EXPERTS, Expert(5, 1.0)), True, seed=0)
    assert sum(p.numel() for p in added.values()) == expected


@pytest.mark.slow
def test_its_size_on_sdxl_is_the_published_one() -> None:
    """2,611.75 MB: within 0.2 % of the real module in half precision."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sdxl_unet_config())
        expected = mole_parameters(unet)
        added = add_mole(unet, MoleSettings.model_construct(stage="gates").experts, True, seed=0)
    count = sum(p.numel() for p in added.values())
    assert count == expected
    assert 2 * count / 2**20 == pytest.approx(2611.75, rel=0.002)


@pytest.mark.parametrize("stage", ["face", "hand"])
def test_stages_of_experts_train_that_expert_alone(stage: str) -> None:
    model = MoleModel(build_small(0), settings(stage), seed=0)
    parameters = model.trainable_parameters()
    assert isinstance(parameters, list)
    assert [id(p) for p in parameters] == [id(p) for p in model.trainable_parameters()]
    layers = [module for module in model.pipeline.unet.modules() if isinstance(module, MoleLinear)]
    assert {tuple(layer.strengths.items()) for layer in layers} == {((stage, ALPHAS[stage] / RANK),)}
    assert all(name.split(".")[-3:-1] in (["down", stage], ["up", stage]) for name in model.trainable_state())
    trained = {id(p) for p in parameters}
    assert {id(p) for p in model.pipeline.unet.parameters() if p.requires_grad} == trained


def test_stage_gates_trains_gates_with_the_experts_of_both_files(make_batch: MakeBatch, experts: Path) -> None:
    model = gated(experts)
    assert all("_gate" in name for name in model.trainable_state() if name != "experts.sha256")
    ours = dict(model.pipeline.unet.named_parameters())
    for stage in ("face", "hand"):
        for name, tensor in load_file(experts / stage / MOLE_FILE).items():
            assert torch.equal(ours[name], tensor)
            assert not ours[name].requires_grad
    model.predict(*make_batch(2)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.trainable_parameters())
    assert all(p.grad is None for p in model.pipeline.unet.parameters() if not p.requires_grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_in_half_precision_is_gated_in_float32(make_batch: MakeBatch, experts: Path, dtype: torch.dtype) -> None:
    model = gated(experts, dtype)
    for autocast in (False, True):
        with torch.autocast("cpu", dtype, enabled=autocast):
            prediction = model.predict(*make_batch(2))
        assert prediction.dtype == torch.float32
        gradients = torch.autograd.grad(prediction.square().mean(), model.trainable_parameters())
        assert all(g.dtype == torch.float32 and bool(g.isfinite().all()) for g in gradients)


def test_gradient_checkpointing_changes_no_gradient(make_batch: MakeBatch, experts: Path) -> None:
    found = []
    for checkpointing in (False, True):
        model = gated(experts, checkpointing=checkpointing)
        assert model.pipeline.unet.is_gradient_checkpointing is checkpointing
        loss = model.predict(*make_batch(2)).square().mean()
        found.append(torch.autograd.grad(loss, model.trainable_parameters()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-8)


def test_the_file_holds_all_and_loads_back_exactly(make_batch: MakeBatch, tmp_path: Path, experts: Path) -> None:
    inputs, model = make_batch(2), gated(experts)
    shaken(model.trainable_parameters())
    for name in ("one", "two"):
        model.save(tmp_path / name)
    assert (tmp_path / "one" / MOLE_FILE).read_bytes() == (tmp_path / "two" / MOLE_FILE).read_bytes()
    assert [path.name for path in (tmp_path / "one").iterdir()] == [MOLE_FILE]
    said = read_mole_header(tmp_path / "one")
    assert said.stage == "gates"
    assert said.experts == {"face": Expert(RANK, 2.0), "hand": Expert(RANK, 4.0)}
    assert said.shapes["mid_block.attentions.0.transformer_blocks.0.attn2.to_k"] == [160, 128]
    pipeline = build_small(0)
    plain = predict(pipeline, inputs)
    load_mole(pipeline.unet, tmp_path / "one")
    found, saved = pipeline.unet.state_dict(), model.pipeline.unet.state_dict()
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], saved[name]) for name in saved)
    drawn = predict(pipeline, inputs)
    torch.testing.assert_close(drawn, predict(model.pipeline, inputs))
    assert (drawn - plain).abs().max() > 1e-2
    assert not any(p.requires_grad for layer in pipeline.unet.modules() for p in _own(layer))


def _own(layer: nn.Module) -> list[nn.Parameter]:
    return (
        [p for name, p in layer.named_parameters() if not name.startswith("base.")]
        if isinstance(layer, MoleLinear)
        else []
    )


def test_an_expert_draws_alone_and_in_the_precision_of_the_base(make_batch: MakeBatch, experts: Path) -> None:
    pipeline = build_small(0)
    pipeline.unet.to(torch.bfloat16)
    load_mole(pipeline.unet, experts / "hand" / MOLE_FILE)
    assert {p.dtype for p in pipeline.unet.parameters()} == {torch.bfloat16}
    assert bool(predict(pipeline, make_batch(1)).isfinite().all())


def test_a_state_goes_back_exactly_and_only_to_gates_of_the_same_experts(tmp_path: Path, experts: Path) -> None:
    model, fresh = gated(experts), gated(experts, seed=7)
    shaken(model.trainable_parameters())
    state = model.trainable_state()
    fresh.load_trainable_state(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in fresh.trainable_state().items())
    (tmp_path / "face").mkdir()
    (tmp_path / "hand").symlink_to(experts / "hand")
    other = MoleModel(build_small(0), settings("face"), seed=5)
    other.save(tmp_path / "face")
    with pytest.raises(ModelError, match=r"trained with other experts than .*face and .*hand"):
        gated(tmp_path).load_trainable_state(state)
    with pytest.raises(ModelError, match="other experts"):
        gated(experts).load_trainable_state({name: t for name, t in state.items() if name != "experts.sha256"})


def test_start_files_that_do_not_fit_are_named(tmp_path: Path, experts: Path) -> None:
    def start(**values: object) -> None:
        given = {
            "stage": "gates",
            "rank": RANK,
            "alphas": ALPHAS,
            "start_face": experts / "face",
            "start_hand": experts / "hand",
        }
        MoleModel(build_small(0), MoleSettings.model_validate({**given, **values}), seed=0)

    with pytest.raises(ModelError, match=r"mole.start_hand '.*face.*must be of stage hand .*found stage face"):
        start(start_hand=experts / "face")
    with pytest.raises(ModelError, match=r"mole.start_face .*rank=4.*found stage face with Expert\(rank=3"):
        start(rank=4)
    with pytest.raises(ModelError, match=r"mole.start_face .*alpha=1.0.*alpha=2.0"):
        start(alphas={"face": 1.0, "hand": 4.0})
    with pytest.raises(ModelError, match=rf"{tmp_path}.*expected a file or a folder with {MOLE_FILE}"):
        start(start_face=tmp_path)


def test_a_file_of_another_width_or_depth_is_refused_by_name(tmp_path: Path, experts: Path) -> None:
    config = build_small(0).unet.config
    for change, message in (
        ({"cross_attention_dim": 96}, r"attn2.to_k \[out, in\] is \[64, 128\], expected \[64, 96\]"),
        ({"transformer_layers_per_block": (1, 1, 2)}, r"transformer_blocks.1.* is absent, expected \["),
    ):
        unet = UNet2DConditionModel.from_config({**config, **change})
        before = [name for name, _ in unet.named_parameters()]
        with pytest.raises(ModelError, match=rf"{MOLE_FILE}.*is for another U-Net: .*{message}"):
            load_mole(unet, experts / "face")
        assert [name for name, _ in unet.named_parameters()] == before, "refused before anything is changed"


def test_damaged_and_foreign_files_are_named(tmp_path: Path, experts: Path) -> None:
    unet = build_small(0).unet
    whole = (experts / "face" / MOLE_FILE).read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    LoraModel(build_small(0), LoraSettings(rank=2), seed=0).save(tmp_path / "lora")
    for path in (tmp_path / "cut", tmp_path / "lora" / "pytorch_lora_weights.safetensors"):
        with pytest.raises(ModelError, match=rf"{path.name}.*expected a fairhuman-mole-1 file, found"):
            load_mole(unet, path)
    with safe_open(experts / "face" / MOLE_FILE, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(experts / "face" / MOLE_FILE)
    gone = tensors.popitem()[0]
    save_file(tensors, tmp_path / "less", metadata)
    with pytest.raises(ModelError, match=rf"less.*{gone}.* is missing"):
        load_mole(unet, tmp_path / "less")


def test_weights_that_are_not_finite_and_sizes_that_cannot_be_are_refused(tmp_path: Path, experts: Path) -> None:
    file = experts / "face" / MOLE_FILE
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    odd = tmp_path / MOLE_FILE
    for change, message in (
        (
            {"ranks": '{"face": 1000000000}'},
            r"expected a fairhuman-mole-1 file, found ranks \[1000000000\], whose weights",
        ),
        ({"ranks": '{"face": 0}'}, "found rank 0"),
        ({"ranks": '{"face": 1e999}'}, "found cannot convert"),
        ({"alphas": '{"face": NaN}'}, "alpha nan"),
        ({"base_shapes": "5"}, "expected a fairhuman-mole-1 file"),
        ({"base_shapes": '{"a": 5}'}, "expected a fairhuman-mole-1 file"),
    ):
        save_file(tensors, odd, {**metadata, **change})
        with pytest.raises(ModelError, match=message) as found:
            read_mole_header(odd)
        assert "\n" not in str(found.value)
    key = next(iter(tensors))
    save_file({**tensors, key: torch.full_like(tensors[key], torch.inf)}, odd, metadata)
    with pytest.raises(ModelError, match=rf"MoLE '{odd}': every weight must be a finite number, but the tensor {key} "):
        load_mole(build_small(0).unet, odd)


def test_a_unet_that_has_one_already_or_a_lora_is_refused(experts: Path) -> None:
    pipeline = build_small(0)
    load_mole(pipeline.unet, experts / "face")
    with pytest.raises(ModelError, match="found a LoRA or a MoLE on it"):
        load_mole(pipeline.unet, experts / "hand")
    used = build_small(0)
    LoraModel(used, LoraSettings(rank=2), seed=0)
    with pytest.raises(ModelError, match="found a LoRA or a MoLE on it"):
        load_mole(used.unet, experts / "hand")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rank": 0}, "rank"),
        ({"alphas": {"face": 0}}, "face"),
        ({"stage": "gates", "start_face": "a"}, "start_hand needs the file of stage hand"),
        ({"stage": "face", "start_face": "a"}, "start_face applies to stage gates only"),
        ({"stage": "both"}, "stage"),
    ],
)
def test_settings_are_checked(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MoleSettings.model_validate(wrong)
    assert (MoleSettings().rank, MoleSettings().alphas) == (256, Alphas(face=64, hand=128))
