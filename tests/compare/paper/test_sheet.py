"""Costs and paper sheet as commands give them: our numbers in their places, words for them, bad files named."""

import json

import pytest
import torch

from fairhuman.compare.paper.cost import mole_parameters
from fairhuman.compare.paper.cost_page import write_costs
from fairhuman.compare.paper.settings import CostSettings, SheetSettings
from fairhuman.compare.paper.sheet import metric_values, read_tables, write_sheet
from fairhuman.errors import DataError, RecipeError
from fairhuman.models import architecture
from fairhuman.models.architecture import build_small

WORDS = {"model": "the small SDXL", "data": "none", "scale": "2 steps", "metrics": "parameters in MiB"}


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("costs")
    write_costs(CostSettings(model="small-untrained", rank=2, size=64, steps=1, repeats=1), folder)
    return folder / "costs.json"


def test_costs_are_measured_and_counted(costs):
    document = json.loads(costs.read_text())
    variants = {one["name"]: one for one in document["measured"]["variants"]}
    assert variants["LoRA, fused"]["extra_parameter_bytes"] == 0
    assert variants["LoRA, not fused"]["extra_parameter_bytes"] > 0
    assert variants["MoLE"]["extra_parameter_bytes"] == 4 * mole_parameters(build_small(0).unet, 2)
    assert document["counted"]["LoRA, not fused, rank 256"]["parameters"] == 371_589_120
    page = costs.with_name("report.html").read_text()
    for text in ("371,589,120", "1,413.12", "LoRA, not fused, rank 64", "parameters only"):
        assert text in page


@pytest.mark.slow
def test_the_true_shape_is_measured_with_random_weights(tmp_path, monkeypatch):
    small = {"_SDXL_VAE": {"block_out_channels": (8,) * 4, "norm_num_groups": 4, "layers_per_block": 1}}
    small["_CLIP_L"] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    small["_OPEN_CLIP_G"] = {**small["_CLIP_L"], "projection_dim": 16}
    for name, values in small.items():
        monkeypatch.setattr(architecture, name, {**getattr(architecture, name), **values})
    unet = {**architecture.sdxl_unet_config(), "block_out_channels": (32, 32, 32), "attention_head_dim": 2}
    unet |= {"transformer_layers_per_block": 1, "cross_attention_dim": 32, "addition_time_embed_dim": 8}
    unet["projection_class_embeddings_input_dim"] = 6 * 8 + 16
    monkeypatch.setattr(architecture, "sdxl_unet_config", lambda: unet)
    write_costs(CostSettings(model="sdxl-shape", rank=2, size=64, steps=1, repeats=1), tmp_path)
    document = json.loads((tmp_path / "costs.json").read_text())
    assert document["counted"]["LoRA, not fused, rank 256"]["parameters"] == 371_589_120, "of the true shape"
    assert all(one["wall_s"]["median"] > 0 for one in document["measured"]["variants"])
    one, same = (architecture.build_sdxl_shape("cpu", torch.bfloat16).unet.conv_in.weight for _ in range(2))
    assert one.dtype == torch.bfloat16
    assert torch.equal(one, same)


def test_our_costs_stand_beside_the_published_ones(costs, tmp_path):
    said = SheetSettings.model_validate({"costs": WORDS})
    page = write_sheet(read_tables(costs, None, said), tmp_path).read_text()
    assert "the small SDXL" in page
    assert "<td>“Ours” in the paper: its LoRA</td>" in page, "beside columns of our own numbers"
    assert (", MB" in page, "Extra Memory Usage, MiB<br>published" in page) == (False, True)
    assert page.count("Extra Memory Usage, MiB<br>ours") == 1, "each column's head says what it is of, also on a phone"
    assert page.count("not measured") == 4, "Table 2"
    sheet = json.loads((tmp_path / "paper.json").read_text())
    ours = {(one["row"], one["column"]): one["ours"] for one in sheet["rows"] if one["ours"] is not None}
    assert set(ours) == {(row, name) for row in ("Ours", "MoLE") for name in ("Extra Memory Usage", "Inference Time")}
    assert ours["Ours", "Extra Memory Usage"] == 708.75, "of SDXL's true shape in fp16, not of the model that was timed"
    assert ours["MoLE", "Extra Memory Usage"] == pytest.approx(2607.65, abs=0.01)
    variants = {one["variant"]: one for one in sheet["variants"]["Table 1"]}
    assert list(variants) == ["LoRA, fused", "LoRA, not fused", "MoLE"]
    memory = {name: (one["fp16_mib"], one["fp32_mib"], one["published_mb"]) for name, one in variants.items()}
    assert memory["LoRA, fused"] == (0.0, 0.0, None)
    assert memory["LoRA, not fused"] == (708.75, 1417.5, 1413.12), "the published figure is in fp32"
    assert memory["MoLE"][0] == pytest.approx(memory["MoLE"][2], rel=0.002), "the published figure is in fp16"
    assert ours["Ours", "Inference Time"] == variants["LoRA, not fused"]["time"]
    assert variants["LoRA, not fused"]["published_time"] == 1.4
    note = sheet["notes"]["Table 1"]
    assert "on cpu on this model, not on SDXL's shape: small-untrained, 64 px, rank 2, float32" in note
    assert "agree with different precisions" in page


def test_only_metrics_of_the_paper_and_methods_of_its_rows_are_taken():
    def one(name, method, value):
        return {"name": name, "method": method, "value": value}

    metrics = [
        one("official hand confidence", "SI", 0.9),
        one("strict hand confidence", "SI", 0.5),
        one("HPS v2.1", "LS", 30.0),
        one("HPS v2.1", "mine", 31.0),
        one("FID", "LS", None),
    ]
    assert metric_values({"metrics": metrics}) == {("SI", "Hand Confi."): 90.0, ("LS", "HPS"): 30.0}


def test_our_name_of_the_papers_method_is_known_and_what_is_not_taken_is_said(tmp_path):
    file = tmp_path / "metrics.json"

    def sheet(*methods):
        metrics = [{"name": "FID", "method": name, "value": 40.0 + n} for n, name in enumerate(methods)]
        file.write_text(json.dumps({"metrics": metrics}))
        said = SheetSettings.model_validate({"evaluation": WORDS})
        page = write_sheet(read_tables(None, file, said), tmp_path).read_text()
        sheet = json.loads((tmp_path / "paper.json").read_text())
        return {one["row"]: one["ours"] for one in sheet["rows"] if one["ours"] is not None}, sheet["notes"], page

    assert sheet("LS", "MPD")[:2] == ({"LS": 40.0, "MPD-FairGrad": 41.0}, {})
    ours, notes, page = sheet("base", "MPD", "MPD-FairGrad", "mpd")
    assert ours == {"MPD-FairGrad": 42.0}, "the row's own name wins"
    assert notes["Table 2"].startswith("Not used from the evaluation: base, MPD, mpd. Known methods: LS, DWA,")
    assert notes["Table 2"] in page
    assert "Table 3 (LoRA ranks 64, 128, 256) is not included" in page


def test_numbers_need_words_and_a_file_of_ours(costs, tmp_path):
    with pytest.raises(RecipeError, match=r"costs.json: describe the set-up of these numbers: costs.model"):
        read_tables(costs, None, SheetSettings())
    said = SheetSettings.model_validate({"costs": WORDS, "evaluation": WORDS})
    with pytest.raises(DataError, match=r"costs.json: expected the JSON of fairhuman evaluate; KeyError"):
        read_tables(None, costs, said)
    other = tmp_path / "metrics.json"
    other.write_text('{"metrics": [{"name": "FID", "method": "mine", "value": 1.0}]}')
    with pytest.raises(DataError, match=r"metrics.json: has none of the .* rows LS, .* columns HPS.*: mine\. .*, MPD;"):
        read_tables(None, other, said)
    with pytest.raises(DataError, match=r"nope.json: there is no such file; --costs takes the JSON of fairhuman cost"):
        read_tables(tmp_path / "nope.json", None, SheetSettings())
    with pytest.raises(RecipeError, match=r"no results given: give --costs FILE"):
        read_tables(None, None, said)
