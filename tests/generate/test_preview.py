import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from fairhuman.bases.latents import decode_latents, encode_pictures
from fairhuman.errors import DataError
from fairhuman.generate.preview import PreviewRow, PreviewSet, forget_previews
from fairhuman.models.architecture import build_small
from fairhuman.models.lora import LoraModel
from fairhuman.models.settings import LoraSettings


def previews(strength: float = 0.55) -> PreviewSet:
    generator = torch.Generator().manual_seed(0)
    rows = [
        PreviewRow(
            caption=caption,
            seed=seed,
            picture_chw=torch.rand(3, 32, 48, generator=generator) * 2 - 1,
            boxes={"face": [(1.0, 2.0, 10.0, 12.5)], "hand": []},
        )
        for caption, seed in (("a hat", 1), ("a person", 2), ("a hat", 1))
    ]
    return PreviewSet(rows, steps=4, strength=strength, batch_size=2)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def test_pictures_and_index_are_written(tmp_path: Path) -> None:
    pipeline = build_small(0)
    previews().render(pipeline, 0, tmp_path)
    previews().render(pipeline, 300, tmp_path)
    rows = json.loads((tmp_path / "previews" / "index.json").read_text())["rows"]
    assert [row["caption"] for row in rows] == ["a hat", "a person", "a hat"]
    assert rows[0] == {
        "caption": "a hat",
        "seed": 1,
        "photo": "previews/photo-00.png",
        "conditions": {},
        "boxes": {"face": [[1.0, 2.0, 10.0, 12.5]], "hand": []},
        "steps": {
            str(step): {way: f"previews/step-{step:06d}/row-00-{way}.png" for way in ("caption", "photo")}
            for step in (0, 300)
        },
    }
    for row in rows:
        for names in [row, *row["steps"].values()]:
            assert read(tmp_path / names["photo"]).shape == (32, 48, 3)
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not any(name.startswith(".") for name in files)


def test_rows_of_different_sizes_are_drawn_as_each_alone(tmp_path: Path) -> None:
    pipeline, rows = build_small(0), previews().rows
    tall = PreviewRow("a hat", 3, torch.zeros(3, 48, 32), {})
    together = [rows[0], tall, rows[1], rows[2]]  # the last two in one batch
    PreviewSet(together, steps=2, batch_size=2).render(pipeline, 0, tmp_path / "all")
    found = tmp_path / "all" / "previews" / "step-000000"
    shapes = [read(found / f"row-{n:02d}-photo.png").shape[:2] for n in range(4)]
    assert shapes == [(32, 48), (48, 32), (32, 48), (32, 48)]
    for number in (1, 3):
        PreviewSet([together[number]], steps=2).render(pipeline, 0, tmp_path / "alone")
        for way in ("caption", "photo"):
            alone = read(tmp_path / "alone" / "previews" / "step-000000" / f"row-00-{way}.png")
            assert np.abs(read(found / f"row-{number:02d}-{way}.png") - alone).max() <= 1


def test_same_model_same_previews_and_another_model_others(tmp_path: Path) -> None:
    for name, pipeline in (("a", build_small(0)), ("b", build_small(0)), ("c", build_small(1))):
        torch.rand(1)
        previews().render(pipeline, 7, tmp_path / name)
    for way in ("caption", "photo"):
        a, b, c = (read(tmp_path / n / f"previews/step-000007/row-01-{way}.png") for n in "abc")
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
        first, third = (read(tmp_path / f"a/previews/step-000007/row-0{i}-caption.png") for i in (0, 2))
        assert np.abs(first - third).max() <= 1


def test_little_noise_leaves_the_photo(tmp_path: Path) -> None:
    pipeline, small = build_small(0), previews(strength=0.25)
    # an untrained VAE's latents are small beside the noise: scale them up
    pictures_bchw = torch.stack([row.picture_chw for row in small.rows])
    deviation = encode_pictures(pipeline.vae, pictures_bchw).std()
    pipeline.vae.register_to_config(scaling_factor=20 / float(deviation))
    small.render(pipeline, 0, tmp_path)
    decoded_bchw = decode_latents(pipeline.vae, encode_pictures(pipeline.vae, pictures_bchw))
    closest = []
    for number in range(3):
        drawn = read(tmp_path / f"previews/step-000000/row-{number:02d}-photo.png")
        expected = ((decoded_bchw + 1) * 127.5).permute(0, 2, 3, 1).numpy()
        closest.append(int(np.argmin(np.abs(expected - drawn).mean((1, 2, 3)))))
    assert closest == [0, 1, 2]


def test_model_and_generators_stay_as_they_are(tmp_path: Path) -> None:
    pipeline = build_small(0)
    model = LoraModel(pipeline, LoraSettings(rank=2, dropout=0.5), seed=0, gradient_checkpointing=True)
    modes = [module.training for module in pipeline.unet.modules()]
    state = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    before = torch.get_rng_state()
    previews().render(pipeline, 0, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in pipeline.unet.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in pipeline.unet.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.trainable_parameters())


def test_an_index_of_other_rows_is_replaced(tmp_path: Path) -> None:
    pipeline = build_small(0)
    previews().render(pipeline, 0, tmp_path)
    rows = previews().rows
    changed = PreviewSet([PreviewRow("other", 1, -rows[0].picture_chw, {}), rows[1]], steps=2)
    changed.render(pipeline, 5, tmp_path)
    found = json.loads((tmp_path / "previews" / "index.json").read_text())["rows"]
    assert [list(row["steps"]) for row in found] == [["5"], ["0", "5"]]
    photo = (1 - rows[0].picture_chw) * 127.5
    assert np.abs(read(tmp_path / "previews/photo-00.png") - photo.permute(1, 2, 0).numpy()).max() <= 0.51


@pytest.mark.parametrize("levels", [2, 4])
def test_any_vae_factor(tmp_path: Path, levels: int) -> None:
    pipeline = build_small(0)
    pipeline.vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(8,) * levels,
        norm_num_groups=4,
    )
    previews().render(pipeline, 0, tmp_path)
    for way in ("caption", "photo"):
        assert read(tmp_path / f"previews/step-000000/row-00-{way}.png").shape == (32, 48, 3)


@pytest.mark.parametrize("index", ["[]", "{", "{}", '{"rows": [5]}', '{"rows": [{"steps": {"x": {}}}]}'])
def test_a_damaged_index_is_named(tmp_path: Path, index: str) -> None:
    (tmp_path / "previews").mkdir()
    (tmp_path / "previews" / "index.json").write_text(index)
    with pytest.raises(DataError, match=r"index.json: can't be read as this program wrote it .*; delete it"):
        forget_previews(tmp_path, 1)
