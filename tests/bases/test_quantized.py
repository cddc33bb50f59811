"""Every base with quantised weights: the direction of a step, and the LoRA file."""

from pathlib import Path

import pytest
import torch

from fairhuman.data.samples.batch import Batch
from fairhuman.fairness import FairBackward, MinimumPotentialDelay
from fairhuman.generate.lora import load_lora
from fairhuman.models.frozen_linear import FrozenLinear
from fairhuman.models.sdxl import load_pipeline
from fairhuman.train.step import fair_step
from helpers.base_cases import CAPTIONS, Case, make_case
from helpers.tiny_bases import BUILD

EVERY = [pytest.param(name, marks=() if name in ("sd3", "flux2") else pytest.mark.slow) for name in BUILD]
# These networks are random and 32 wide, and are changed more by rounding than a trained one: tests/models has one.
LEAST_COSINE = {"int8": 0.999, "fp8": 0.99, "nf4": 0.92}
DEEP = {("flux2", "nf4"): 0.8}  # a text encoder of 27 random layers


@pytest.mark.parametrize(
    "kind", [kind if kind == "int8" else pytest.param(kind, marks=pytest.mark.slow) for kind in LEAST_COSINE]
)
@pytest.mark.parametrize("case", EVERY, indirect=True)
def test_the_direction_is_near_that_of_whole_weights(case: Case, batch: Batch, kind: str, tmp_path: Path) -> None:
    quantized = make_case(case.name, case.folder, gradient_checkpointing=True, quantize=kind)
    directions = []
    for each, batched in ((case, False), (quantized, False), (quantized, True)):
        fair_step(each.objectives, FairBackward(each.parameters, MinimumPotentialDelay(), batched=batched), [batch])
        directions.append(each.direction())
    whole, one, together = (direction / direction.norm() for direction in directions)
    assert float(whole @ one) > DEEP.get((case.name, kind), LEAST_COSINE[kind])
    assert torch.allclose(one, together, atol=1e-5)
    quantized.model.save(tmp_path)
    check_file(case, quantized, tmp_path)


def check_file(case: Case, quantized: Case, folder: Path) -> None:
    """Updates that were trained beside quantised weights have the names and shapes of whole ones."""
    pipeline = load_pipeline(str(case.folder))
    load_lora(pipeline, folder, fuse=False)
    base = type(case.base)(pipeline)
    noisy = torch.randn(1, base.channels, 8, 12, generator=torch.Generator().manual_seed(3))
    found = []
    for one in (base, case.base):  # the case has the same updates
        with torch.no_grad():
            found.append(one.predict(noisy, torch.tensor([0.4]), base.texts(CAPTIONS[:1])))
    assert torch.allclose(*found, atol=1e-5)
    assert not any(isinstance(layer, FrozenLinear) for layer in case.base.network.modules())
    assert any(isinstance(layer, FrozenLinear) for layer in quantized.base.network.modules())
