"""Balancers of other papers: each gives the direction that torchjd gives from the gradients themselves."""

import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fairhuman import config
from fairhuman.errors import RecipeError
from fairhuman.fairness import GradientBalancing, LossWeighting, strategy_named
from fairhuman.train.fairness import build_strategy
from fairhuman.train.recipe import TrainRecipe

for needed in ("torchjd", "quadprog", "qpsolvers", "cvxpy", "clarabel"):
    pytest.importorskip(needed, reason=f"{needed} isn't installed; it comes with the extra 'balancers'")

from torchjd import aggregation as theirs  # noqa: E402 - skipped without them
from torchjd import scalarization  # noqa: E402

from fairhuman import balancers  # noqa: E402

Make = Callable[[], GradientBalancing]
PAIRS: dict[str, tuple[Make, Callable[[], Any]]] = {
    "UPGrad": (balancers.UPGrad, theirs.UPGrad),
    "DualProj": (balancers.DualProj, theirs.DualProj),
    "MGDA": (balancers.MGDA, theirs.MGDA),
    "CAGrad": (lambda: balancers.CAGrad(0.4), lambda: theirs.CAGrad(0.4)),
    "AlignedMTL": (lambda: balancers.AlignedMTL("min"), theirs.AlignedMTL),
    "AlignedMTL rmse": (lambda: balancers.AlignedMTL("rmse"), lambda: theirs.AlignedMTL(scale_mode="rmse")),
    "IMTLG": (balancers.IMTLG, theirs.IMTLG),
    "ConFIG": (balancers.ConFIG, theirs.ConFIG),
    "PCGrad": (lambda: balancers.PCGrad(7), theirs.PCGrad),
    "GradVac": (lambda: balancers.GradVac(0.3, 7), lambda: theirs.GradVac(beta=0.3)),
}
RANDOM = ("PCGrad", "GradVac")
RECIPE = {"data": "people", "out": "run", "steps": 1, "fairness": {"mode": "exact"}}


def jacobian(seed: int, size: int = 3) -> Tensor:
    """Gradients of very different lengths, some of which conflict."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(size, 6, dtype=torch.float64, generator=generator)
    return rows * torch.tensor([0.3, 2.0, 1.0, 5.0], dtype=torch.float64)[:size, None]


def gram(seed: int, size: int = 3) -> Tensor:
    return jacobian(seed, size) @ jacobian(seed, size).T


@pytest.mark.parametrize("name", PAIRS)
def test_the_direction_is_that_of_torchjd(name: str) -> None:
    ours, aggregator = (make() for make in PAIRS[name])
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = [aggregator(jacobian(seed)) for seed in range(6)]  # GradVac goes on from step to step
    for seed, direction in enumerate(expected):
        found = torch.tensor(ours.weights(gram(seed)), dtype=torch.float64) @ jacobian(seed)
        torch.testing.assert_close(found, direction, rtol=1e-5, atol=1e-6)


def two_objectives(name: str, gram_22: Tensor) -> tuple[float, float]:
    """The weights of two conflicting gradients with M = [[a, c], [c, b]], c < 0, by the papers' formulas."""
    (a, c), (_, b) = gram_22.tolist()
    if name in ("PCGrad", "GradVac", "UPGrad"):  # g_1 - c / b g_2 and g_2 - c / a g_1; GradVac begins at cosine 0
        share = 0.5 if name == "UPGrad" else 1.0
        return share * (1 - c / a), share * (1 - c / b)
    if name == "MGDA":  # the point of the line between them that is nearest to 0, or an end
        first = min(max((b - c) / (a + b - 2 * c), 0.0), 1.0)
        return first, 1 - first
    if name == "DualProj":  # at most one of the two has a negative product with their mean
        return 0.5 - min(a + c, 0) / (2 * a), 0.5 - min(b + c, 0) / (2 * b)
    if name == "IMTLG":
        first, second = math.sqrt(b) - c / math.sqrt(a), math.sqrt(a) - c / math.sqrt(b)
        return first / (first + second), second / (first + second)
    if name == "AlignedMTL":  # sqrt(smallest eigenvalue) M^(-1/2) / 2
        root = math.sqrt(a * b - c * c)
        trace = math.sqrt(a + b + 2 * root)  # of M^(1/2) = (M + root I) / trace
        smallest = (a + b - math.sqrt((a - b) ** 2 + 4 * c * c)) / 2
        factor = math.sqrt(smallest) / (2 * trace * root)
        return factor * (b + root - c), factor * (a + root - c)
    assert name == "CAGrad"  # its dual problem in one variable, by search
    x = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    squared = a * x**2 + 2 * c * x * (1 - x) + b * (1 - x) ** 2
    to_mean = (x * (a + c) + (1 - x) * (b + c)) / 2
    radius = 0.4 * math.sqrt(a + 2 * c + b) / 2
    best = int((to_mean + radius * squared.sqrt()).argmin())
    step = radius / math.sqrt(float(squared[best]))
    return 0.5 + step * float(x[best]), 0.5 + step * (1 - float(x[best]))


@pytest.mark.parametrize("name", [name for name in PAIRS if " " not in name and name != "ConFIG"])
@pytest.mark.parametrize(
    "gram_22", [[[1.0, -0.4], [-0.4, 0.5]], [[4.0, -0.5], [-0.5, 0.3]], [[2.0, -0.1], [-0.1, 2.0]]]
)
def test_weights_of_two_conflicting_objectives_are_those_of_the_papers(name: str, gram_22: list[list[float]]) -> None:
    m = torch.tensor(gram_22, dtype=torch.float64)
    mean = m.diagonal().mean()  # which the weights are independent of
    for scaled in (m, 7 * m):
        found = torch.tensor(PAIRS[name][0]().weights(scaled), dtype=torch.float64)
        expected = torch.tensor(two_objectives(name, m / mean), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


def test_gradients_of_these_problems_conflict() -> None:
    conflicts = [seed for seed in range(6) if gram(seed).min() < -0.1]
    assert len(conflicts) >= 4
    for name in ("UPGrad", "DualProj", "MGDA"):
        for seed in range(6):
            w_k = torch.tensor(PAIRS[name][0]().weights(gram(seed)), dtype=torch.float64)
            assert (gram(seed) @ w_k).min() > -1e-2, f"{name} makes no objective worse"


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("scale", [1e-16, 1e12])
def test_the_scale_of_the_gradients_has_no_influence(name: str, scale: float) -> None:
    make = PAIRS[name][0]
    for seed in range(3):
        strategy = make()
        weights = strategy.weights(scale * gram(seed))
        assert weights == pytest.approx(make().weights(gram(seed)), rel=1e-5, abs=1e-6)
        assert strategy.natural_factor(weights, 3.0) == 1.0


@pytest.mark.parametrize("name", PAIRS)
def test_an_absent_objective_has_no_weight_and_changes_nothing(name: str) -> None:
    make = PAIRS[name][0]
    padded = torch.zeros(4, 4, dtype=torch.float64)
    index = torch.tensor([0, 1, 3])
    padded[index[:, None], index] = gram(2)
    weights = make().weights(padded)
    assert weights[2] == 0.0
    assert [weights[i] for i in index] == pytest.approx(make().weights(gram(2)), rel=1e-6)
    assert make().weights(torch.zeros(3, 3, dtype=torch.float64)) == [0.0, 0.0, 0.0]


def test_gradvac_remembers_an_absent_objective() -> None:
    strategy = balancers.GradVac(0.3, seed=0)
    strategy.weights(gram(0))
    before = strategy.state_dict()["averages"]
    without = gram(1)
    without[2] = without[:, 2] = 0.0
    strategy.weights(without)
    after = strategy.state_dict()["averages"]
    assert torch.equal(after[2], before[2])
    assert torch.equal(after[:, 2], before[:, 2])
    assert not torch.equal(after[0, 1], before[0, 1])


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_restored_balancer_goes_on_with_the_same_bits(name: str, stop: int, tmp_path: Path) -> None:
    make = PAIRS[name][0]
    whole = make()
    torch.manual_seed(0)
    expected = [whole.weights(gram(seed, 4)) for seed in range(8)]
    first = make()
    found = [first.weights(gram(seed, 4)) for seed in range(stop)]
    torch.save(first.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(1)  # torch's own generator has no influence
    second = make()
    second.load_state_dict(torch.load(tmp_path / "state.pt"))
    untouched = torch.get_rng_state()
    found += [second.weights(gram(seed, 4)) for seed in range(stop, 8)]
    assert found == expected
    assert torch.equal(torch.get_rng_state(), untouched)
    others = balancers.PCGrad(8) if name == "PCGrad" else balancers.GradVac(0.3, 8)
    assert [others.weights(gram(seed, 4)) for seed in range(8)] != expected, "the order counts"


def test_stch_is_the_gradient_of_torchjds_scalarisation() -> None:
    strategy = balancers.STCH(0.2)
    weights = strategy.weights([0.3, None, 0.9, 0.5])
    values = torch.tensor([0.3, 0.9, 0.5], dtype=torch.float64, requires_grad=True)
    scalarization.STCH(0.2)(values).backward()
    assert values.grad is not None
    assert [weights[i] for i in (0, 2, 3)] == pytest.approx(values.grad.tolist())
    softmax = (values.detach() / (3 * 0.2)).softmax(0) / 3
    assert [weights[i] for i in (0, 2, 3)] == pytest.approx(softmax.tolist())
    assert weights[1] == 0.0


def test_every_balancer_is_an_entry_point() -> None:
    root = Path(__file__).parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"]["fairhuman.strategies"]
    assert points == {f"torchjd:{name}": f"fairhuman.balancers:{name}" for name in balancers.__all__}
    for name in balancers.__all__:
        kind = strategy_named(f"torchjd:{name}")
        assert kind is getattr(balancers, name)
        assert issubclass(kind, LossWeighting if name == "STCH" else GradientBalancing)
        recipe = config.build(TrainRecipe, {**RECIPE, "strategy": f"torchjd:{name}"})
        assert recipe.needs_gram == (name != "STCH")
        assert isinstance(build_strategy(recipe, torch.device("cpu")), kind)


def test_settings_reach_their_balancer() -> None:
    def built(*overrides: str) -> Any:
        return build_strategy(config.build(TrainRecipe, RECIPE, overrides), torch.device("cpu"))

    assert built("strategy=torchjd:CAGrad", "fairness.torchjd.c=0.7").weighting.c == 0.7
    aligned = built("strategy=torchjd:AlignedMTL", "fairness.torchjd.scale_mode=median")
    assert aligned.weighting.scale_mode == "median"
    assert built("strategy=torchjd:GradVac", "fairness.torchjd.beta=0.1").weighting.beta == 0.1
    assert built("strategy=torchjd:STCH", "fairness.torchjd.mu=0.3").scalarizer.mu == 0.3
    one, other = (built("strategy=torchjd:PCGrad", f"seed={seed}").state_dict()["generator"] for seed in (1, 2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=torchjd:PCGrad", "fairness.mode=output"], "it needs fairness.mode=exact, found output"),
        (["strategy=torchjd:UPgrad"], "did you mean 'torchjd:UPGrad'?"),
        (["strategy=torchjd:UPGrad", "fairness.options.c=1"], "fairness.options are of strategies that other packages"),
        (["strategy=torchjd:CAGrad", "fairness.torchjd.c=-1"], "fairness.torchjd.c: input should be greater than or"),
    ],
)
def test_what_a_recipe_may_not_say(overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        config.build(TrainRecipe, RECIPE, overrides)
    assert message in str(error.value)
