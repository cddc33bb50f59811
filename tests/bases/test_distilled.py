"""Which pipelines are refused: other classes, and step-distilled variants of known ones."""

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import pytest

from fairhuman.bases.names import BASES, ON_THE_HUB, base_name
from fairhuman.bases.z_image import ZImage
from fairhuman.errors import ModelError
from fairhuman.models.fingerprint import encoded_size
from fairhuman.models.locations import check_location, location_of, name_of, side_multiple


def published_folder(folder: Path, **configs: dict[str, Any]) -> Path:
    for part, values in configs.items():
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        (folder / part).mkdir()
        (folder / part / name).write_text(json.dumps(values))
    return folder


# By the fields of the published configurations.
FLUX1 = ("FluxPipeline", {}, {"transformer": {"guidance_embeds": True}})
SCHNELL = ("FluxPipeline", {}, {"transformer": {"guidance_embeds": False}})
KLEIN_BASE = ("Flux2KleinPipeline", {}, {})  # the field isn't there
KLEIN = ("Flux2KleinPipeline", {"is_distilled": True}, {})
Z_IMAGE = ("ZImagePipeline", {}, {"scheduler": {"shift": 6.0}})
Z_IMAGE_TURBO = ("ZImagePipeline", {}, {"scheduler": {"shift": 3.0}})
SD35 = ("StableDiffusion3Pipeline", {}, {"scheduler": {"shift": 3.0}})


@pytest.mark.parametrize(
    ("model", "published", "reason"),
    [
        ("black-forest-labs/FLUX.1-schnell", SCHNELL, "guidance_embeds=false"),
        ("models/any", SCHNELL, "guidance_embeds=false"),
        ("black-forest-labs/FLUX.2-klein-4B", KLEIN, "is_distilled=true"),
        ("Tongyi-MAI/Z-Image-Turbo", Z_IMAGE_TURBO, r"shift=3\.0, the base model has 6"),
        ("stabilityai/stable-diffusion-3.5-large-turbo", SD35, "by its name, stabilityai/stable-diffusion-3.5-large"),
    ],
)
def test_step_distilled_variants_are_refused_with_the_reason(
    tmp_path: Path, model: str, published: tuple[str, dict[str, Any], dict[str, Any]], reason: str
) -> None:
    kind, index, configs = published
    with pytest.raises(ModelError, match=f"model '{model}': is a step-distilled .*{reason}") as error:
        base_name(model, {"_class_name": kind, **index}, published_folder(tmp_path, **configs))
    assert "take the base model" in str(error.value)


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("black-forest-labs/FLUX.1-dev", FLUX1),
        ("black-forest-labs/FLUX.2-klein-base-4B", KLEIN_BASE),
        ("Tongyi-MAI/Z-Image", Z_IMAGE),
        ("stabilityai/stable-diffusion-3.5-medium", SD35),
        ("Qwen/Qwen-Image", ("QwenImagePipeline", {}, {})),
        ("models/turbo/portraits", SD35),
    ],
)
def test_base_models_are_taken(
    tmp_path: Path, model: str, published: tuple[str, dict[str, Any], dict[str, Any]]
) -> None:
    kind, index, configs = published
    assert base_name(model, {"_class_name": kind, **index}, published_folder(tmp_path, **configs)) is BASES[kind]


def test_other_pipelines_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"expected a StableDiffusionXLPipeline, .*QwenImagePipeline, found PixArtSigma"
    ):
        base_name("m", {"_class_name": "PixArtSigmaPipeline"}, tmp_path)


@pytest.mark.parametrize("model", ON_THE_HUB)
def test_published_models_are_known_without_a_download(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a recipe's settings are checked for its base before anything is fetched."""
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    few_steps = any(word in model for word in ("urbo", "schnell")) or ("klein" in model and "base" not in model)
    if few_steps:
        with pytest.raises(ModelError, match="is a step-distilled"):
            check_location(model)
    else:
        check_location(model)
        assert name_of(model) is BASES[ON_THE_HUB[model]["_class_name"]]
    assert side_multiple("Tongyi-MAI/Z-Image") == 16


def test_a_hub_id_is_the_base_that_its_cached_index_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    assert not name_of("owner/portraits").flow  # not here, and not known: taken for SDXL
    folder = tmp_path / "models--owner--portraits"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    (folder / "snapshots/abc/model_index.json").write_text('{"_class_name": "QwenImagePipeline"}')
    assert name_of("owner/portraits").title == "Qwen-Image"
    assert location_of("owner/portraits") == str(folder / "snapshots/abc")


def test_without_a_network_only_published_shapes_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="Qwen/Qwen-Image-2512 isn't in the hub's local cache"):
        encoded_size("Qwen/Qwen-Image-2512")
    assert encoded_size("Tongyi-MAI/Z-Image") == (8, 16, 512, 2560, 0)


def test_no_module_that_a_model_names_is_imported(tmp_path: Path) -> None:
    index = {"_class_name": "ZImagePipeline", "transformer": ["this", "Quine"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"expected a transformer of diffusers or transformers, found this\.Quine"):
        ZImage.shape(str(tmp_path))
