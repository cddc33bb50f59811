"""Small data sets as users of other trainers have them: names, files and settings of each tool, tiny pictures."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from helpers.tiny_pictures import encoded, picture

WIDTH, HEIGHT, COUNT = 40, 48, 3


def photo(path: Path, seed: int, caption: str | None = None, suffix: str = ".txt", kind: str = "JPEG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(WIDTH, HEIGHT, seed), kind))
    if caption is not None:
        path.with_suffix(suffix).write_text(f"{caption}\n", encoding="utf-8")


def mask(path: Path, columns: int = 10, mode: str = "L") -> None:
    """White in the first columns, black elsewhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask_hw = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask_hw[:, :columns] = 255
    Image.fromarray(mask_hw).convert(mode).save(path)


def write_kohya(root: Path) -> Path:
    """`train_data_dir` with a folder a concept, and masks beside them."""
    for number in range(COUNT):
        photo(root / "10_ohwx person" / f"img{number}.jpg", number, f"ohwx person, photo {number}")
        mask(root / "masks" / "10_ohwx person" / f"img{number}.png")
    (root / "10_ohwx person" / "img1.txt").rename(root / "10_ohwx person" / "img1.caption")
    (root / "10_ohwx person" / "img2.txt").unlink()
    return root


def write_kohya_toml(root: Path) -> Path:
    """`--dataset_config` of sd-scripts: masks in `conditioning_data_dir`, opacity by `alpha_mask`."""
    for number in range(COUNT):
        photo(root / "img" / f"{number}.png", number, f"photo {number}", ".caption", "PNG")
        mask(root / "cond" / f"{number}.png", mode="RGB")
        transparent = picture(WIDTH, HEIGHT, 9 + number).convert("RGBA")
        transparent.putalpha(Image.fromarray(np.tile(np.uint8([255] * 10 + [0] * 30), (HEIGHT, 1))))
        (root / "cut").mkdir(exist_ok=True)
        transparent.save(root / "cut" / f"cut{number}.png")
    (root / "dataset.toml").write_text(
        f"""
[general]
caption_extension = ".caption"
shuffle_caption = false

[[datasets]]
resolution = 1024
batch_size = 4

  [[datasets.subsets]]
  image_dir = "{root / "img"}"
  conditioning_data_dir = "cond"
  num_repeats = 4

  [[datasets.subsets]]
  image_dir = "cut"
  class_tokens = "ohwx person"
  alpha_mask = true
""",
        encoding="utf-8",
    )
    return root / "dataset.toml"


def write_onetrainer(root: Path) -> Path:
    for number in range(COUNT):
        photo(root / f"img {number}.jpg", number, f"photo {number}\na photo of ohwx" if number else "photo 0")
        mask(root / f"img {number}-masklabel.png")
    return root


def write_ai_toolkit(root: Path) -> Path:
    for number in range(COUNT):
        photo(root / "photos" / f"{number}.jpg", number, f"photo {number}")
        mask(root / "photo_masks" / f"{number}.png")
    dataset = {
        "folder_path": str(root / "photos"),
        "mask_path": "photo_masks",
        "caption_ext": "txt",
        "num_repeats": 2,
        "resolution": [512, 768, 1024],
    }
    process = {"type": "sd_trainer", "device": "cuda:0", "trigger_word": "ohwx", "datasets": [dataset]}
    config = {"job": "extension", "config": {"name": "my_first_lora", "process": [process]}}
    (root / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return root / "train.yaml"


def write_diffusion_pipe(root: Path) -> Path:
    """A directory with its masks inside, as in the example of diffusion-pipe."""
    for number in range(COUNT):
        photo(root / "grayscale" / f"{number}.jpg", number, f"photo {number}")
        mask(root / "grayscale" / "masks" / f"{number}.png")
    (root / "dataset.toml").write_text(
        f"""
resolutions = [512]
enable_ar_bucket = true

[[directory]]
path = '{root / "grayscale"}'
mask_path = '{root / "grayscale/masks"}'
num_repeats = 3
""",
        encoding="utf-8",
    )
    return root / "dataset.toml"


def write_simpletuner(root: Path) -> Path:
    for number in range(COUNT):
        photo(root / "datasets" / "subject" / f"{number}.png", number, f"photo {number}\nanother caption", kind="PNG")
        mask(root / "datasets" / "masks" / f"{number}.png")
    entries = [
        {
            "id": "subject-data",
            "type": "local",
            "dataset_type": "image",
            "conditioning_data": "mask-data",
            "instance_data_dir": "datasets/subject",
            "caption_strategy": "textfile",
            "cache_dir_vae": "cache/vae",
            "resolution": 1024,
            "repeats": 4,
        },
        {
            "id": "mask-data",
            "type": "local",
            "dataset_type": "conditioning",
            "conditioning_type": "mask",
            "instance_data_dir": "datasets/masks",
        },
        {"id": "text-embeds", "type": "local", "dataset_type": "text_embeds", "default": True, "cache_dir": "cache/te"},
    ]
    (root / "config").mkdir()
    (root / "config" / "multidatabackend.json").write_text(json.dumps(entries), encoding="utf-8")
    return root / "config" / "multidatabackend.json"


# Name of the format, and how often each photo is read in an epoch.
TRAINERS: Mapping[str, tuple[Callable[[Path], Path], str, int]] = {
    "kohya": (write_kohya, "kohya", 10),
    "onetrainer": (write_onetrainer, "onetrainer", 1),
    "ai_toolkit": (write_ai_toolkit, "ai_toolkit", 2),
    "diffusion_pipe": (write_diffusion_pipe, "diffusion_pipe", 3),
    "simpletuner": (write_simpletuner, "simpletuner", 5),
}
