"""Write a trained pipeline into the package, in float16: as `model: small`, or as `model: small-flow`.

    python training/common/pack.py --model runs/flow/decay/model

The pipeline's class decides which one it is. Of the small flow base only the transformer is written: its VAE, text
encoders and tokenizers are those of the small SDXL, which the package has. No file may be larger than 16 MiB, and all
together at most 20 MB, for the small flow base 16 MB.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fairhuman.bases.base import networks
from fairhuman.models.locations import name_of
from fairhuman.models.sdxl import load_pipeline
from fairhuman.utils.files import write_atomically
from fairhuman.utils.shipped import FLOW_UNTRAINED, SMALL_FLOW_FOLDER, SMALL_FOLDER

LARGEST_FILE = 16 * 2**20
LARGEST_FOLDER = {SMALL_FOLDER: 20 * 10**6, SMALL_FLOW_FOLDER: 16 * 10**6}
CARD = "README.md"


def main() -> None:
    """Convert, check the sizes, replace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="pipeline's folder")
    parser.add_argument("--out", type=Path, help="folder to replace; none: the package's own")
    args = parser.parse_args()
    pack(args.model, args.out)


def pack(model: Path, out: Path | None = None) -> None:
    """Write the pipeline of a folder to `out`, which keeps its model card; None: to its place in the package."""
    place = SMALL_FLOW_FOLDER if name_of(str(model)).flow else SMALL_FOLDER
    pipeline = load_pipeline(str(model))
    if place == SMALL_FLOW_FOLDER:
        check_shared(pipeline)
    for part in networks(pipeline):
        nn.Module.to(part, torch.float16)
    target = out or place

    def write(folder: Path) -> None:
        if place == SMALL_FLOW_FOLDER:
            pipeline.save_config(folder)
            pipeline.transformer.save_pretrained(folder / "transformer", max_shard_size="15MB")
            pipeline.scheduler.save_pretrained(folder / "scheduler")
        else:
            pipeline.save_pretrained(folder, max_shard_size="15MB")
        for config in folder.rglob("*.json"):
            forget_origin(config)
        if (target / CARD).is_file():
            shutil.copy(target / CARD, folder / CARD)
        check_sizes(folder, LARGEST_FOLDER[place])

    write_atomically(target, write)


def check_shared(pipeline: Any) -> None:
    """Exit unless the VAE and the text encoders are those of the package, which aren't written again."""
    own = load_pipeline(FLOW_UNTRAINED)
    for part in ("vae", "text_encoder", "text_encoder_2"):
        expected, found = (getattr(one, part).state_dict() for one in (own, pipeline))
        same = expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
        if not same:
            raise SystemExit(f"--model: its {part} must be that of the small SDXL in the package, found other weights")


def forget_origin(config: Path) -> None:
    """Remove the local path from a configuration."""
    content = json.loads(config.read_text(encoding="utf-8"))
    if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def check_sizes(folder: Path, limit: int) -> None:
    """Print the folder's size in bytes; exit if it is too large to ship."""
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    largest = max(sizes, key=lambda path: sizes[path])
    if sizes[largest] > LARGEST_FILE or sum(sizes.values()) > limit:
        raise SystemExit(
            f"the package may hold at most {LARGEST_FILE} bytes per file and {limit} in total, found "
            f"{sizes[largest]} in {largest.name} and {sum(sizes.values())} in total"
        )
    print(f"{sum(sizes.values()) / 1e6:.1f} MB in {len(sizes)} files, the largest {largest.name}")


if __name__ == "__main__":
    main()
