"""Cut points of a U-Net, and mode tail."""

import numpy as np
import pytest
import torch
from torch import nn

from fairhuman.fairness import FairBackward, MinimumPotentialDelay, TailEstimator, solve
from fairhuman.fairness.estimators.cut import Cut, CutPoint, cut_points
from fairhuman.fairness.estimators.tail import floor_eigenvalues
from helpers.small_unet import losses, small_unet, take, trained, true_gradients

ATTENTION_PLACES = [CutPoint(1, 1), CutPoint(1), CutPoint(0, 1), CutPoint(0)]


def names_above(targets: str) -> dict[str, set[str]]:
    unet = small_unet(targets)
    names = [name for name, parameter in unet.named_parameters() if parameter.requires_grad]
    return {str(place): {names[p] for p in above} for place, above in cut_points(unet, trained(unet)).items()}


def test_places_go_from_few_parameters_to_many() -> None:
    unet = small_unet()
    found = cut_points(unet, trained(unet))
    assert list(found) == ATTENTION_PLACES  # the last block has no attention, so no parameter
    assert [len(above) for above in found.values()] == sorted({len(above) for above in found.values()})


def test_modules_above_a_cut_run_after_it() -> None:
    found = names_above("attention+conv")
    assert all(name.startswith("up_blocks.2.") for name in found["up_blocks.2"])
    last = found["up_blocks.1.attentions.1"] - found["up_blocks.2"]
    assert {".".join(name.split(".")[:4]) for name in last} == {"up_blocks.1.attentions.1"}
    first = found["up_blocks.1"] - found["up_blocks.1.attentions.1"]
    assert {".".join(name.split(".")[2:4]) for name in first} == {"attentions.0", "resnets.0", "resnets.1"}


def test_between_attentions_it_is_cut_only_where_embeddings_are_not_trained() -> None:
    whole = names_above("all")
    assert list(whole) == ["up_blocks.2", "up_blocks.1", "up_blocks.0"]
    assert {"conv_out.weight", "conv_norm_out.bias"} <= whole["up_blocks.2"]
    assert not any(name.startswith("time_embedding") for name in whole["up_blocks.0"])


@pytest.mark.parametrize("place", ATTENTION_PLACES, ids=str)
def test_a_cut_changes_no_value_and_no_gradient(place: CutPoint) -> None:
    unet, cut_unet = small_unet(), small_unet()
    Cut(cut_unet, place)
    for i in range(3):
        for net in (unet, cut_unet):
            net.zero_grad()
            loss = losses(net)[0][i]
            assert loss is not None
            loss.backward()
        for a, b in zip(trained(unet), trained(cut_unet), strict=True):
            assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("targets", ["attention", "attention+conv", "all"])
def test_every_cut_gives_the_complete_gradient(targets: str) -> None:
    """From the output to the crossings, and from there down: together the gradient of an ordinary backward pass."""
    unet = small_unet(targets)
    rows = true_gradients(unet)
    for place, above in cut_points(unet, trained(unet)).items():
        cut = Cut(unet, place)
        parameters = trained(unet)
        top, bottom = [parameters[p] for p in above], [p for i, p in enumerate(parameters) if i not in above]
        loss = losses(unet)[0][1]
        found = torch.autograd.grad(loss, [*top, *cut.crossings], retain_graph=True, allow_unused=True)
        below = cut.pull_back(found[len(top) :], bottom)
        pieces = dict(zip(map(id, [*top, *bottom]), [*found[: len(top)], *below], strict=True))
        whole = torch.cat(
            [(torch.zeros_like(p) if pieces[id(p)] is None else pieces[id(p)]).reshape(-1) for p in parameters]
        )
        torch.testing.assert_close(whole.double(), rows[1], rtol=0.0, atol=1e-6 * float(rows[1].norm()))
        cut.remove()


def test_the_highest_cut_that_is_close_enough_is_chosen() -> None:
    """The whole decoder estimates well, a single layer less so; the trial finds which suffices."""
    chosen = {}
    for close in (-1.0, 1.1):
        unet = small_unet()
        tail = TailEstimator(unet, trained(unet), trial=2, close=close)
        fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=tail)
        for seed in range(2):
            assert tail.place is None
            assert take(fair, unet, seed).exact
        assert not take(fair, unet, 2).exact
        chosen[close] = tail.place
    assert chosen == {-1.0: ATTENTION_PLACES[0], 1.1: ATTENTION_PLACES[-1]}


def test_the_first_half_of_the_trial_does_not_count() -> None:
    unet = small_unet()
    tail = TailEstimator(unet, trained(unet), trial=2, close=0.5)
    fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=tail)
    take(fair, unet, 0)
    tail._cosines = [[-1.0] * len(ATTENTION_PLACES)]
    take(fair, unet, 1)
    assert tail.place == ATTENTION_PLACES[0]


def test_weights_are_those_of_the_gram_matrix_above() -> None:
    unet = small_unet()
    tail = TailEstimator(unet, trained(unet), every=0, place=CutPoint(1))
    above = cut_points(unet, trained(unet))[CutPoint(1)]
    sizes = [p.numel() for p in trained(unet)]
    here = torch.cat([torch.full((size,), i in above) for i, size in enumerate(sizes)])
    rows = true_gradients(unet)[:, here]
    step = take(FairBackward(trained(unet), MinimumPotentialDelay(), estimator=tail), unet)
    assert not step.exact
    weights = solve(floor_eigenvalues(rows @ rows.T))
    np.testing.assert_allclose(step.weights / step.weights.sum(), weights / weights.sum(), rtol=1e-4)


def test_floor_eigenvalues_keeps_norms_and_limits_cosines() -> None:
    gram = torch.tensor([[4.0, 0.0, 6.0], [0.0, 0.0, 0.0], [6.0, 0.0, 9.0]], dtype=torch.float64)
    wide = floor_eigenvalues(gram)
    np.testing.assert_allclose(wide.diagonal(), [4.0, 0.0, 9.0])
    assert wide[0, 2] / 6.0 == pytest.approx(1.98 / 2.02)  # eigenvalues 2 and 0 of the unit-diagonal form: 2 and 0.02
    assert bool((wide[1] == 0.0).all())
    mild = torch.tensor([[4.0, 1.0], [1.0, 9.0]], dtype=torch.float64)
    torch.testing.assert_close(floor_eigenvalues(mild), mild)


def test_losses_of_an_earlier_call_are_an_error() -> None:
    unet = small_unet()
    tail = TailEstimator(unet, trained(unet), every=0, place=CutPoint(1, 1))
    fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=tail)
    found, _ = losses(unet)
    losses(unet, 1)
    # The parameters above are reached, but nothing of what crosses the place in the last call.
    with pytest.raises(ValueError, match="the last call of the U-Net"):
        fair(found)


def test_networks_without_a_decoder_are_refused() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="Linear has no up_blocks; modes exact, ema and output support any network"):
        TailEstimator(net, list(net.parameters()))
    unet = small_unet()
    below = list(unet.down_blocks.parameters())
    with pytest.raises(ValueError, match="no trained parameter in the U-Net's up blocks"):
        TailEstimator(unet, below)
    with pytest.raises(ValueError, match=r"place must be one of up_blocks\.1\.attentions\.1, .*, got up_blocks\.2"):
        TailEstimator(unet, trained(unet), place=CutPoint(2))
