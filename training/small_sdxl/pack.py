"""Write a trained pipeline into the package, in float16, as `model: small`.

    python training/small_sdxl/pack.py --model runs/base/unet/model

No file may be larger than 16 MiB, and all together at most 20 MB.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

from fairhuman.models.locations import SMALL_FOLDER
from fairhuman.models.sdxl import check_sdxl
from fairhuman.utils.files import write_atomically

LARGEST_FILE, LARGEST_FOLDER = 16 * 2**20, 20 * 10**6
CARD = "README.md"


def main() -> None:
    """Convert, check the sizes, replace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="pipeline's folder")
    parser.add_argument("--out", type=Path, default=SMALL_FOLDER)
    args = parser.parse_args()
    pipeline = StableDiffusionXLPipeline.from_pretrained(args.model, dtype=torch.float16)
    check_sdxl(pipeline, str(args.model))

    def write(folder: Path) -> None:
        pipeline.save_pretrained(folder, max_shard_size="15MB")
        for config in folder.rglob("*.json"):
            forget_origin(config)
        check_sizes(folder)
        if (args.out / CARD).is_file():
            shutil.copy(args.out / CARD, folder / CARD)

    write_atomically(args.out, write)


def forget_origin(config: Path) -> None:
    """Remove the local path from a configuration."""
    content = json.loads(config.read_text(encoding="utf-8"))
    if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_sizes(folder: Path) -> None:
    """Print the folder's size; exit if it is too large to ship."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    largest = max(sizes, key=lambda path: sizes[path])
    if sizes[largest] > LARGEST_FILE or sum(sizes.values()) > LARGEST_FOLDER:
        raise SystemExit(
            f"the package may hold at most {LARGEST_FILE} bytes per file and {LARGEST_FOLDER} in total, found "
            f"{sizes[largest]} in {largest.name} and {sum(sizes.values())} in total"
        )
    print(f"{sum(sizes.values()) / 1e6:.1f} MB in {len(sizes)} files, the largest {largest.name}")


if __name__ == "__main__":
    main()
