"""The computed memory of a run against the measured one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fairhuman.bases.base import networks
from fairhuman.models.control import ControlModel
from fairhuman.train import memory
from fairhuman.train.fairness import build_strategy
from fairhuman.train.live_bytes import LiveBytes, fake_tensors
from fairhuman.train.memory import CONTEXT, Memory, cheapest_changes, combined_changes, memory_of
from fairhuman.train.optimizer import build_optimizer
from fairhuman.train.recipe import TrainRecipe
from helpers.prepared_steps import prepared
from peak_memory import peak_allocated_bytes

MakeRecipe = Callable[..., TrainRecipe]
EXACT = {"fairness": {"mode": "exact"}}
PAIRS = {"fairness": {"mode": "exact", "pairwise": True}}
BF16 = {"gradients": "bf16"}
KEPT = {"fairness": {"mode": "exact", **BF16}}
WAYS: dict[str, dict[str, Any]] = {
    "LoRA, LS": {"strategy": "ls"},
    "LoRA, MPD": EXACT,
    "LoRA, MPD, bf16": {**EXACT, "precision": "bf16"},
    "LoRA, MPD, checkpointing": {**EXACT, "gradient_checkpointing": True},
    "LoRA, MPD, int8": {**EXACT, "base": {"quantize": "int8"}},
    "LoRA, MPD, nf4, bf16": {**EXACT, "base": {"quantize": "nf4"}, "precision": "bf16"},
    "full, MPD": {**EXACT, "kind": "full"},
    "ControlNet, MPD, pairs": {**PAIRS, "kind": "controlnet"},
    "T2I-adapter, MPD": {**EXACT, "kind": "t2i_adapter"},
    "MoLE, MPD": {**EXACT, "kind": "mole", "mole": {"rank": 4}},
    "full, MPD, accumulated": {**EXACT, "kind": "full", "accumulate": 2},
    "full, LS, accumulated": {"strategy": "ls", "kind": "full", "accumulate": 2},
    "full, MPD, pairs": {**PAIRS, "kind": "full"},
    "full, MPD, kept in bf16": {**KEPT, "kind": "full"},
    "full, MPD, kept in bf16, checkpointing": {**KEPT, "kind": "full", "gradient_checkpointing": True},
    "ControlNet, MPD, pairs kept in bf16": {
        "fairness": {**PAIRS["fairness"], "gradients": "bf16"},
        "kind": "controlnet",
    },
}
QUICK = ("LoRA, MPD", "ControlNet, MPD, pairs", "full, MPD, kept in bf16")


def test_bytes_are_live_until_unreferenced() -> None:
    known = torch.zeros(100)
    with LiveBytes([known]) as live:
        a = torch.ones(1000)
        b = a[:10].view(2, 5)
        assert live.live == 4000, "a view has no memory of its own"
        del a
        assert live.live == 4000
        c = b + known[:5]
        del b
        assert (live.live, live.peak) == (40, 4040)
        del c
    assert live.live == 0


def test_a_view_that_its_schema_hides_has_no_memory_of_its_own() -> None:
    with fake_tensors(), LiveBytes() as live:
        for _ in range(2):  # not even when the operation is known
            whole = torch.empty(4, 6)
            part = torch.ops.aten._unsafe_view(whole, [24])
            assert live.live == 96
            del whole
            assert live.live == 96
            del part
    assert live.live == 0


def test_fake_tensors_have_shapes_and_dtypes() -> None:
    with torch.device("meta"):
        layer = torch.nn.Linear(10**6, 10**6, dtype=torch.bfloat16)
    with fake_tensors(layer):
        found = layer(torch.empty(2, 10**6, dtype=torch.bfloat16))
        assert (found.shape, found.dtype, found.device.type) == ((2, 10**6), torch.bfloat16, "cpu")


def test_what_is_known_of_an_operation_depends_on_the_types_of_its_numbers() -> None:
    with fake_tensors():
        whole = torch.zeros(3, dtype=torch.int64)
        assert [(whole * number).dtype for number in (2, 2.0, 2)] == [torch.int64, torch.float32, torch.int64]
        assert [torch.full((2,), number).dtype for number in (1, 1.0, True)] == [torch.int64, torch.float32, torch.bool]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in WAYS]
)
def test_a_step_needs_the_computed_memory(make_recipe: MakeRecipe, name: str) -> None:
    """Peak of PyTorch's CPU allocator, within 10 %."""
    recipe = make_recipe(batch_size=4, resolution=64, **WAYS[name])
    expected = memory_of(recipe)
    model, take_step = prepared(recipe, torch.device("cpu"))
    assert max(expected.step, expected.encode) == pytest.approx(peak_allocated_bytes(take_step), rel=0.1)
    control = [model.control.network] if isinstance(model, ControlModel) else []
    weights = [p for network in (*networks(model.pipeline), *control) for p in network.parameters()]
    assert expected.frozen + expected.trained == sum(p.numel() * p.element_size() for p in weights)
    optimizer = build_optimizer(recipe, model, build_strategy(recipe, torch.device("cpu")))
    optimizer.step()
    state = [t for values in optimizer.state.values() for t in values.values() if torch.is_tensor(t) and t.numel() > 1]
    assert expected.optimizer == sum(4 * tensor.numel() for tensor in state)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", WAYS)
def test_a_step_on_cuda_needs_the_computed_memory(make_recipe: MakeRecipe, name: str) -> None:
    """Peak of PyTorch's CUDA allocator, within 20 %: kernels have workspaces, and other attention than a CPU."""
    recipe = make_recipe(batch_size=4, resolution=64, **WAYS[name])
    expected = memory_of(recipe)
    _, take_step = prepared(recipe, torch.device("cuda"))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    take_step()
    measured = torch.cuda.max_memory_allocated() - before
    assert max(expected.step, expected.encode) == pytest.approx(measured, rel=0.2)


def test_an_amortised_run_includes_its_audits(make_recipe: MakeRecipe) -> None:
    exact, amortised = (memory_of(make_recipe(kind="full", fairness={"mode": mode})) for mode in ("exact", "output"))
    plain = memory_of(make_recipe(kind="full", strategy="ls", fairness={"measure_every": 0}))
    assert amortised.audit == exact.step
    assert amortised.step == plain.step < exact.step
    assert plain.audit is None
    assert exact.total == amortised.total


def test_a_loss_weighting_includes_its_logged_gram_matrices(make_recipe: MakeRecipe) -> None:
    """As many bytes as an exact step; doing without is the first change that is offered."""
    recipe = make_recipe(kind="full", strategy="ls")
    logged, exact = memory_of(recipe), memory_of(make_recipe(kind="full", **EXACT))
    assert logged.audit == exact.step > logged.step
    found = cheapest_changes(recipe, logged.needed - 1, most=1)
    assert [change.overrides for change in found] == [("fairness.measure_every=0",)]
    one = make_recipe(kind="full", strategy="ls", regions={"names": []})
    assert memory_of(one).audit is None, "one gradient is that of an ordinary step"


def test_gradients_kept_in_bfloat16_take_half(make_recipe: MakeRecipe) -> None:
    """Of K = 3; of pairs, half of two. Both beside activations, which some of the gradients replace."""
    for fairness, gradients in ((EXACT["fairness"], 3), (PAIRS["fairness"], 2)):
        wide, kept = (
            memory_of(make_recipe(kind="full", fairness={**fairness, "gradients": kind})) for kind in ("fp32", "bf16")
        )
        assert wide.step - kept.step == pytest.approx(gradients / 2 * wide.trained, rel=0.05)
        assert wide.optimizer == kept.optimizer
        assert wide.update == kept.update


def test_what_summing_micro_batches_excludes_is_taken_back(make_recipe: MakeRecipe) -> None:
    """Where it was set or is an earlier option, and nowhere else, as the command line refuses what has no effect."""

    def last(**values: Any) -> tuple[str, ...]:
        return list(memory._options(make_recipe(batch_size=4, **values), cpu=False))[-1]

    rest = ("fairness.pairwise=false", "fairness.gradients=fp32")
    assert last() == ("batch_size=1", "accumulate=4", *rest)
    assert last(regions={"names": []}) == ("batch_size=1", "accumulate=4", *rest[:1])
    assert last(strategy="ls") == ("batch_size=1", "accumulate=4")
    assert last(accumulate=2) == ("batch_size=1", "accumulate=8")


def test_one_objective_has_no_pairs(make_recipe: MakeRecipe) -> None:
    """As in MoLE's own loss, where no region is named: one gradient is held, beside the graph, which lives on."""
    one = {"regions": {"names": []}, "kind": "full"}
    pairs = memory_of(make_recipe(**one, **PAIRS))
    plain = memory_of(make_recipe(**one, strategy="ls"))
    assert plain.step <= pairs.step < plain.step + pairs.trained / 2


@pytest.mark.slow
def test_sdxl_without_weights(make_recipe: MakeRecipe) -> None:
    """A rank of 256 with exact MPD at 1024 x 1024 fits a card of 24 GB."""
    size: dict[str, Any] = {"model": "sdxl", "resolution": 1024, "batch_size": 1, "lora": {"rank": 256}}
    found = memory_of(make_recipe(**size, **EXACT, precision="bf16", gradient_checkpointing=True))
    assert found.trained == 4 * 371_589_120
    assert found.frozen == 2 * (2_567_463_684 + 123_060_480 + 694_659_840) + 4 * 83_653_863
    assert found.optimizer == 2 * found.trained
    assert 3 * found.trained < found.step < 5 * found.trained
    assert found.needed < 24e9


def test_the_cheapest_fitting_changes(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(kind="full", batch_size=4, resolution=64, **EXACT)
    now = memory_of(recipe).needed
    found = cheapest_changes(recipe, now - 2**20, most=4)
    assert [change.overrides for change in found] == [
        ("cache.text=true",),
        ("fairness.gradients=bf16",),
        ("fairness.mode=output", "fairness.pairwise=true"),
        ("precision=bf16",),
    ]
    assert all(change.memory.needed < now for change in found)
    assert str(found[2]).startswith("fairness.mode=output fairness.pairwise=true (0.")
    without_gpu = cheapest_changes(recipe, memory_of(recipe).on_cpu - 2**20, most=4, cpu=True)
    assert [change.overrides for change in without_gpu] == [
        ("fairness.gradients=bf16",),
        ("fairness.mode=output", "fairness.pairwise=true"),
        ("precision=bf16",),
        ("optimizer.name=adamw8bit",),
    ]


@pytest.mark.parametrize(
    ("kind", "most"),
    [("lora", 3), *(pytest.param(kind, 99, marks=pytest.mark.slow) for kind in ("lora", "full", "controlnet"))],
)
def test_a_model_kept_from_the_recipe_before_needs_as_much_as_its_own(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, kind: str, most: int
) -> None:
    recipe, models = make_recipe(kind=kind), memory.ShapeModels()
    changed = [memory._changed(recipe, option) for option in list(memory._options(recipe, False))[:most]]
    monkeypatch.setattr(memory, "_PEAKS", {})
    found = [memory_of(one, models) for one in changed]
    monkeypatch.setattr(memory, "_PEAKS", {})
    assert found == [memory_of(one) for one in changed]


def test_changes_are_combined_if_one_is_not_enough(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """How changes are chosen, with needs that are easy to follow: each option saves 2^20 bytes of 2^23."""

    def simple(recipe: TrainRecipe, _models: object = None) -> Memory:
        saved = recipe.fairness.pairwise + (recipe.precision == "bf16") + (recipe.optimizer.name == "adamw8bit")
        saved += recipe.gradient_checkpointing + (recipe.batch_size == 1) + recipe.cache.text
        return Memory(frozen=2**23 - saved * 2**20, trained=0, optimizer=0, encode=0, step=0, audit=None, update=0)

    monkeypatch.setattr(memory, "memory_of", simple)
    recipe = make_recipe(kind="full", batch_size=4, resolution=64, **EXACT)
    now = simple(recipe).needed
    assert len(cheapest_changes(recipe, now)) == 3
    (together,) = cheapest_changes(recipe, now - 2**21)
    assert together.overrides == ("cache.text=true", "fairness.mode=output", "fairness.pairwise=true")
    (four,) = cheapest_changes(recipe, now - 2**22)
    assert four.overrides[3:] == ("precision=bf16", "optimizer.name=adamw8bit")
    assert cheapest_changes(recipe, CONTEXT) == []
    (_, kept, amortised) = cheapest_changes(make_recipe(kind="full", batch_size=4, resolution=64), now)
    assert kept.overrides == ("fairness.gradients=bf16",)
    assert amortised.overrides == ("fairness.pairwise=true",)


def test_the_cheapest_combination_has_nothing_that_is_not_needed(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bits of weights save most here, and halving them again as much as all cheaper changes together."""

    def simple(recipe: TrainRecipe, _models: object = None) -> Memory:
        saved = recipe.cache.text + (recipe.precision == "bf16") + recipe.gradient_checkpointing
        saved += {"none": 0, "int8": 4, "nf4": 8}[recipe.base.quantize]
        return Memory(frozen=2**25 - saved * 2**20, trained=0, optimizer=0, encode=0, step=0, audit=None, update=0)

    monkeypatch.setattr(memory, "memory_of", simple)
    recipe = make_recipe()
    now = simple(recipe).needed
    unit = int(2**20 * 1.05)

    def chosen(saved: int, **values: object) -> list[str] | None:
        found = combined_changes(make_recipe(**values), now - saved * unit)
        return None if found is None else list(found.overrides)

    assert chosen(0) == []
    assert chosen(1) == ["cache.text=true"]
    assert chosen(3) == ["cache.text=true", "precision=bf16", "gradient_checkpointing=true"]
    assert chosen(4) == ["base.quantize=int8"]
    assert chosen(5) == ["cache.text=true", "base.quantize=int8"]
    assert chosen(9) == ["cache.text=true", "base.quantize=nf4"]
    assert chosen(12) is None
    (single,) = cheapest_changes(recipe, now - 8 * unit)
    assert single.overrides == ("base.quantize=nf4",)
    assert "base.quantize=int8" not in str(cheapest_changes(make_recipe(kind="full"), now - unit))


def test_totals() -> None:
    memory = Memory(frozen=1, trained=2, optimizer=4, encode=8, step=16, audit=None, update=32)
    assert memory.total == 39
