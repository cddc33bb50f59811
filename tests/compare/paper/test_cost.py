"""What a LoRA costs: exact counts on SDXL's shape, and ratios measured on the small one."""

import json
from dataclasses import asdict

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import nn

from fairhuman.compare.paper.cost import (
    BASE,
    FUSED,
    MIB,
    MOLE,
    ON_CPU,
    UNFUSED,
    _with_lora,
    lora_parameters,
    measure_costs,
    mole_parameters,
    table_for_sdxl,
    with_mole,
)
from fairhuman.errors import ModelError
from fairhuman.generate.sample import draw, picture_generator
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.architecture import build_small
from fairhuman.models.lora import add_lora
from fairhuman.models.settings import LoraSettings


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionXLPipeline:
    return build_small(0)


@pytest.mark.parametrize(("rank", "millions", "mib"), [(64, 92.9, 354.4), (128, 185.8, 708.8), (256, 371.6, 1417.5)])
def test_lora_on_sdxl_has_the_known_size(rank: int, millions: float, mib: float) -> None:
    rows = {row.name: row for row in table_for_sdxl(rank)}
    assert rows[FUSED].parameters == 0
    assert rows[UNFUSED].parameters / 1e6 == pytest.approx(millions, abs=0.05)
    assert rows[UNFUSED].fp32_mib == pytest.approx(mib, abs=0.05)
    assert rows[UNFUSED].fp16_mib == rows[UNFUSED].fp32_mib / 2
    assert rows[UNFUSED].published_mb == (1413.12 if rank == 256 else None)


def test_published_sizes_are_near_the_counts_in_different_precisions() -> None:
    rows = {row.name: row for row in table_for_sdxl(256)}
    assert rows[MOLE].published_mb == pytest.approx(rows[MOLE].fp16_mib, rel=0.002)
    assert rows[UNFUSED].published_mb == pytest.approx(rows[UNFUSED].fp32_mib, rel=0.0035)
    assert rows[MOLE].parameters / rows[UNFUSED].parameters == pytest.approx(3.7, abs=0.05)


def test_lora_count_is_what_peft_makes() -> None:
    unet = build_small(0).unet
    expected = lora_parameters(unet, 3)
    assert sum(p.numel() for p in add_lora(unet, LoraSettings(rank=3), 0).values()) == expected
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        lora_parameters(unet, 0)


def test_mole_count_is_that_of_its_layers(pipeline: StableDiffusionXLPipeline) -> None:
    count = 0
    for name, layer in pipeline.unet.named_modules():
        if isinstance(layer, nn.Linear) and ".attentions." in name:
            inside, outside = layer.in_features, layer.out_features
            made = [nn.Linear(inside, 5, bias=False), nn.Linear(5, outside, bias=False)] * 2
            gates = [nn.Linear(inside, 2), nn.Linear(outside, 1), nn.Linear(outside, 1)]
            count += sum(p.numel() for module in (*made, *gates) for p in module.parameters())
    assert mole_parameters(pipeline.unet, rank=5) == count


def test_costs_are_ratios_to_the_base_and_leave_it_as_it_is(pipeline: StableDiffusionXLPipeline) -> None:
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    table = measure_costs(pipeline, rank=8, size=32, steps=2, repeats=2, others={"twice": build_small(1)})
    costs = {cost.name: cost for cost in table.variants}
    assert list(costs) == [BASE, FUSED, UNFUSED, "twice"]
    assert costs[BASE].wall_ratio == costs[BASE].cpu_ratio
    assert costs[BASE].wall_ratio.min == costs[BASE].wall_ratio.max == 1
    extra = {name: cost.extra_parameter_bytes for name, cost in costs.items()}
    assert extra == {BASE: 0, FUSED: 0, UNFUSED: 4 * lora_parameters(pipeline.unet, 8), "twice": 0}
    for cost in costs.values():
        for spread in (cost.wall_s, cost.cpu_s, cost.wall_ratio, cost.cpu_ratio):
            assert 0 < spread.min <= spread.median <= spread.max
        assert cost.extra_peak_bytes is None
    assert (table.device, table.dtype, table.memory) == ("cpu", "float32", ON_CPU)
    assert json.loads(json.dumps(asdict(table)))["variants"][2]["name"] == UNFUSED
    after = pipeline.unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_both_loras_draw_the_same_and_not_what_the_base_draws() -> None:
    base = build_small(0)
    pipelines = {BASE: base, **_with_lora(base, LoraSettings(rank=64))}
    settings = SampleSettings(steps=2, height=32, width=32, guidance=1)
    drawn = {name: draw(each, ["a hat"], [picture_generator(0, 0, 0)], settings) for name, each in pipelines.items()}
    assert (drawn[UNFUSED] - drawn[BASE]).abs().max() > 20 * (drawn[UNFUSED] - drawn[FUSED]).abs().max()


def test_a_mole_draws_otherwise_than_the_base_and_has_its_precision() -> None:
    base = build_small(0)
    settings = SampleSettings(steps=2, height=32, width=32, guidance=1)
    drawn = [draw(each, ["a hat"], [picture_generator(0, 0, 0)], settings) for each in (base, with_mole(base, 8))]
    assert (drawn[0] - drawn[1]).abs().max() > 1e-4
    base.unet.to(torch.bfloat16)
    assert {parameter.dtype for parameter in with_mole(base, 2).unet.parameters()} == {torch.bfloat16}
    assert not any("experts" in name or ".up." in name for name in base.unet.state_dict())


def test_loras_have_the_precision_of_the_base() -> None:
    base = build_small(0)
    base.unet.to(torch.bfloat16)
    for each in _with_lora(base, LoraSettings(rank=2)).values():
        assert {parameter.dtype for parameter in each.unet.parameters()} == {torch.bfloat16}


def test_wrong_use_is_refused(pipeline: StableDiffusionXLPipeline) -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1, got 0"):
        measure_costs(pipeline, rank=8, size=32, repeats=0)
    with pytest.raises(ValueError, match=r"others: \['base'\] are names"):
        measure_costs(pipeline, rank=8, size=32, others={BASE: pipeline})
    used = build_small(0)
    add_lora(used.unet, LoraSettings(rank=2), 0)
    with pytest.raises(ModelError, match="found a LoRA in use"):
        measure_costs(used, rank=8, size=32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_peak_memory_on_cuda_has_the_lora_in_it() -> None:
    pipeline = build_small(0).to("cuda")
    costs = {cost.name: cost for cost in measure_costs(pipeline, rank=64, size=32, steps=2, repeats=1).variants}
    assert costs[BASE].extra_peak_bytes == 0
    assert costs[UNFUSED].extra_peak_bytes >= costs[UNFUSED].extra_parameter_bytes / 2 + MIB / 2
