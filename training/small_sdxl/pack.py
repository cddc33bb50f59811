"""Write a trained pipeline into the package, in float16: what `model: small` loads.

    python training/small_sdxl/pack.py --model runs/base/unet/model

No file is larger than 16 MiB and all together take at most 20 MB.
"""

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

from fairhuman.models.sdxl import SMALL_FOLDER, check_sdxl

LARGEST_FILE, LARGEST_FOLDER = 16 * 2**20, 20 * 10**6
CARD = "README.md"


def main() -> None:
    """Convert, check the sizes, replace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="pipeline's folder")
    parser.add_argument("--out", type=Path, default=SMALL_FOLDER)
    args = parser.parse_args()
    pipeline = StableDiffusionXLPipeline.from_pretrained(args.model)
    check_sdxl(pipeline, str(args.model))
    partial = args.out.with_name(args.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.to(torch.float16).save_pretrained(partial, max_shard_size="15MB")
    sizes = {path: path.stat().st_size for path in partial.rglob("*") if path.is_file()}
    largest = max(sizes, key=lambda path: sizes[path])
    if sizes[largest] > LARGEST_FILE or sum(sizes.values()) > LARGEST_FOLDER:
        raise SystemExit(
            f"{partial}: at most {LARGEST_FILE} bytes a file and {LARGEST_FOLDER} together, found "
            f"{sizes[largest]} in {largest.name} and {sum(sizes.values())}"
        )
    if (args.out / CARD).is_file():
        shutil.copy(args.out / CARD, partial / CARD)
    shutil.rmtree(args.out, ignore_errors=True)
    partial.replace(args.out)
    print(f"{args.out}: {sum(sizes.values()) / 1e6:.1f} MB in {len(sizes)} files, largest {largest.name}")


if __name__ == "__main__":
    main()
