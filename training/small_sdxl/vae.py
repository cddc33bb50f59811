"""Train the VAE of the small SDXL on a folder of pictures, and write a complete pipeline folder with it.

    python training/small_sdxl/vae.py --data FOLDER --out PIPELINE --minutes 25

Loss: L1 + 2 MSE + half the L1 of the image gradients, weighted four times on faces and hands, + 1e-4 KL; AdamW with
    warm-up and cosine decay to zero. The log-variance starts small, so that the decoder sees almost noiseless latents
    from the first step. At the end the statistics of the latents are folded into the two adjacent 1x1 convolutions:
    zero mean and unit variance in every channel, scaling_factor 1. The U-Net and the text encoders of the written
    pipeline are random, from the seed.

Run the same command again to resume from the last checkpoint (one every two minutes). Minutes are counted over all
parts of a run. FOLDER is anything that `data=` accepts (docs/data-format.md); every 20th picture, at most 64, is held
out.
"""

import argparse
import json
import math
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image, ImageChops, ImageOps
from torch import Tensor

from fairhuman.bases.latents import vae_factor
from fairhuman.data.pictures.decode import decode, decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import read_source
from fairhuman.data.sources.rows import SourceSettings
from fairhuman.models.sdxl import load_pipeline
from fairhuman.record import HumanRecord
from fairhuman.regions.masks import boxes_to_mask
from fairhuman.utils.shipped import UNTRAINED

CHECKPOINT_SECONDS = 120
KL_WEIGHT, GRADIENT_WEIGHT, MSE_WEIGHT, REGION_WEIGHT = 1e-4, 0.5, 2.0, 3.0


@dataclass
class Progress:
    """Progress over all parts of a run, saved in the checkpoint."""

    step: int = 0
    seconds: float = 0.0
    log: list[dict[str, float]] = field(default_factory=list)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--out", type=Path, required=True, help="pipeline folder to write")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--steps", type=int)
    parser.add_argument("--size", type=int, default=128, help="short side in pixels; training crops are half of it")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--model", default=UNTRAINED, help="a pipeline whose VAE is trained further")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--bf16", action="store_true", help="bfloat16 autocast: 1.8 times as fast on CPUs with avx512_bf16"
    )
    return parser.parse_args()


def read_pictures(path: Path, size: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Read all pictures, resized to a short side of `size`, as uint8 [H, W, 4]; held-out ones are cropped to squares.

    The fourth channel is 255 on faces and hands.
    """
    report = LoadReport()
    records = read_source(path, ("face", "hand"), SourceSettings(), report)
    training, held_out = [], []
    every = max(2, min(20, len(records)))
    for number, record in enumerate(records):
        picture = decode(record.image)[0].copy()
        picture.putalpha(regions_of(record, picture.size))
        if number % every == 0 and len(held_out) < 64:
            held_out.append(np.asarray(ImageOps.fit(picture, (size, size), Image.Resampling.LANCZOS)))
        else:
            scale = size / min(picture.size)
            sides = [max(size, round(side * scale)) for side in picture.size]
            training.append(np.asarray(picture.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)))
    if not training or not held_out:
        raise SystemExit(f"--data {path}: expected at least two pictures")
    return training, held_out


def regions_of(record: HumanRecord, size: tuple[int, int]) -> Image.Image:
    """Draw the faces and hands of a record from its masks or, without masks, its boxes."""
    drawn = Image.new("L", size)
    for region in ("face", "hand"):
        if region in record.masks:
            drawn = ImageChops.lighter(drawn, decode_mask(record.masks[region]))
        else:
            boxes = [(box.x0, box.y0, box.x1, box.y1) for box in record.boxes.get(region) or ()]
            mask_hw = boxes_to_mask(torch.tensor(boxes).reshape(-1, 4), (size[1], size[0]))
            drawn = ImageChops.lighter(drawn, Image.fromarray((mask_hw * 255).round().byte().numpy()))
    return drawn


def to_tensor(pictures: list[np.ndarray]) -> Tensor:
    """Stack uint8 pictures [H, W, 4] to [B, 4, H, W]: colours in [-1, 1], the mask of regions in [0, 1]."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    return torch.cat([stacked[:, :3] / 127.5 - 1, stacked[:, 3:] / 255], dim=1)


def draw_batch(pictures: list[np.ndarray], batch_size: int, crop: int, seed: int, step: int) -> tuple[Tensor, int]:
    """Draw random, randomly flipped crops and a seed for the latent noise, all derived from (seed, step)."""
    generator = np.random.default_rng((seed, step))
    crops = []
    for index in generator.integers(0, len(pictures), batch_size):
        picture = pictures[index]
        top, left = (int(generator.integers(0, side - crop + 1)) for side in picture.shape[:2])
        square = picture[top : top + crop, left : left + crop]
        crops.append(square[:, ::-1] if generator.random() < 0.5 else square)
    return to_tensor(crops), int(generator.integers(2**62))


def start_small(vae: AutoencoderKL) -> None:
    """Begin with residual branches near zero and a log-variance near -5."""
    channels = vae.config.latent_channels
    with torch.no_grad():
        vae.quant_conv.weight[channels:] *= 0.1
        vae.quant_conv.bias[channels:] = -5.0
        for name, module in vae.named_modules():
            if name.endswith(".conv2"):
                module.weight.mul_(0.1)
                module.bias.zero_()


def losses(vae: AutoencoderKL, batch_bchw: Tensor, noise_seed: int, bf16: bool) -> dict[str, Tensor]:
    """Compute the parts of the loss and their sum, "total"."""
    pictures_bchw, weights_b1hw = batch_bchw[:, :3], 1 + REGION_WEIGHT * batch_bchw[:, 3:]
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        moments = vae.encode(pictures_bchw).latent_dist.parameters
    posterior = DiagonalGaussianDistribution(moments.float())
    latents = posterior.sample(torch.Generator().manual_seed(noise_seed))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        decoded = vae.decode(latents).sample
    residual = decoded.float() - pictures_bchw
    parts = {
        "l1": (weights_b1hw * residual.abs()).mean(),
        "mse": (weights_b1hw * residual.square()).mean(),
        "gradient": (weights_b1hw[:, :, 1:] * residual.diff(dim=2).abs()).mean()
        + (weights_b1hw[:, :, :, 1:] * residual.diff(dim=3).abs()).mean(),
        "kl": 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean(),
    }
    weights = {"l1": 1.0, "mse": MSE_WEIGHT, "gradient": GRADIENT_WEIGHT, "kl": KL_WEIGHT}
    parts["total"] = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    return parts


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, pictures_bchw: Tensor) -> tuple[Tensor, float]:
    """Encode (to the mean) and decode; returns the pictures and the mean PSNR in dB over [0, 1] values."""
    decoded = torch.cat([vae.decode(vae.encode(p).latent_dist.mode()).sample for p in pictures_bchw.split(8)])
    decoded = decoded.clamp(-1, 1)
    errors_b = ((decoded - pictures_bchw) / 2).square().mean((1, 2, 3)).clamp_min(1e-10)
    return decoded, float((-10 * errors_b.log10()).mean())


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pictures: list[np.ndarray], size: int) -> dict[str, list[float]]:
    """Fold mean and deviation of each latent channel into the 1x1 convolutions; decoded pictures stay.

    z' = (z - m) / s with s^2 = Var(mean) + E[sigma^2], the variance of what training samples; log-variance
    - 2 log s.
    """
    centres = [p[(p.shape[0] - size) // 2 :][:size, (p.shape[1] - size) // 2 :][:, :size] for p in pictures[:256]]
    posteriors = [vae.encode(to_tensor(centres[i : i + 8])[:, :3]).latent_dist for i in range(0, len(centres), 8)]
    means_bchw = torch.cat([posterior.mean for posterior in posteriors])
    variances_bchw = torch.cat([posterior.var for posterior in posteriors])
    mean_c = means_bchw.mean((0, 2, 3))
    deviation_c = (means_bchw.var((0, 2, 3)) + variances_bchw.mean((0, 2, 3))).sqrt()
    channels = len(mean_c)
    encode, decode = vae.quant_conv, vae.post_quant_conv
    encode.weight[:channels] /= deviation_c[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - mean_c) / deviation_c
    encode.bias[channels:] -= 2 * deviation_c.log()
    decode.bias += decode.weight[:, :, 0, 0] @ mean_c
    decode.weight *= deviation_c[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0, shift_factor=None)
    return {"mean": mean_c.tolist(), "deviation": deviation_c.tolist()}


def write_sheet(path: Path, pictures_bchw: Tensor, decoded_bchw: Tensor, columns: int = 8) -> None:
    """Write up to 16 pictures, each with its reconstruction below it."""
    tiles = torch.stack([pictures_bchw[:16], decoded_bchw[:16]], dim=1)
    rows = [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
    size = pictures_bchw.shape[-1]
    sheet = Image.new("RGB", (columns * size, 2 * size * len(rows)), "white")
    for i, row in enumerate(rows):
        for j, pair in enumerate(row):
            for k, tile in enumerate(pair):
                pixels = ((tile + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
                sheet.paste(Image.fromarray(pixels), (j * size, (2 * i + k) * size))
    sheet.save(path)


def train(args: argparse.Namespace, vae: AutoencoderKL, training: list[np.ndarray], held_out: Tensor) -> Progress:
    """Train until the minutes or steps are over, from the checkpoint if there is one."""
    optimizer = torch.optim.AdamW(vae.parameters(), lr=args.learning_rate, weight_decay=1e-4, betas=(0.9, 0.98))
    checkpoint, progress = args.out.with_name(args.out.name + ".checkpoint.pt"), Progress()
    if checkpoint.is_file():
        state = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
        print(f"goes on at step {progress.step} ({progress.seconds:.0f} s) from {checkpoint}", flush=True)
    started, saved = time.monotonic() - progress.seconds, time.monotonic()
    while True:
        progress.seconds = time.monotonic() - started
        share = progress.step / args.steps if args.steps else progress.seconds / (60 * args.minutes)
        over = share >= 1
        if over or time.monotonic() - saved > CHECKPOINT_SECONDS:
            state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(progress)}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            saved = time.monotonic()
        if over:
            return progress
        for group in optimizer.param_groups:
            warm_up = min(1.0, (progress.step + 1) / 50)
            group["lr"] = args.learning_rate * warm_up * 0.5 * (1 + math.cos(math.pi * share))
        crop = max(vae_factor(vae), args.size // 2)
        batch, noise_seed = draw_batch(training, args.batch_size, crop, args.seed, progress.step)
        parts = losses(vae, batch, noise_seed, args.bf16)
        optimizer.zero_grad()
        parts["total"].backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0, error_if_nonfinite=True)
        optimizer.step()
        progress.step += 1
        if progress.step % 100 == 0:
            line = {"step": progress.step, **{name: value.item() for name, value in parts.items()}}
            if progress.step % 500 == 0:
                line["psnr"] = reconstruct(vae, held_out)[1]
            progress.log.append(line)
            seconds = (time.monotonic() - started) / progress.step
            print(f"{seconds:.3f} s/step", {k: round(v, 4) for k, v in line.items()}, flush=True)


def main() -> None:
    """Train, normalise, write."""
    args = parse()
    torch.set_num_threads(args.threads)
    pipeline = load_pipeline(args.model, args.seed)
    vae = pipeline.vae.train()
    training, held = read_pictures(args.data, args.size)
    held_out = to_tensor(held)[:, :3]
    print(f"{len(training)} pictures to train on, {len(held)} held out", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    if args.model == UNTRAINED:
        start_small(vae)
    progress = train(args, vae, training, held_out)
    vae.eval()
    statistics = normalise_latents(vae, training, args.size)
    decoded_bchw, psnr = reconstruct(vae, held_out)
    print(f"held-out PSNR {psnr:.2f} dB after {progress.step} steps")
    report = {
        "settings": {name: str(v) if isinstance(v, Path) else v for name, v in vars(args).items()},
        "kl_weight": KL_WEIGHT,
        "gradient_weight": GRADIENT_WEIGHT,
        "mse_weight": MSE_WEIGHT,
        "region_weight": REGION_WEIGHT,
        "steps": progress.step,
        "seconds": progress.seconds,
        "held_out_psnr_db": psnr,
        "latents_before_folding": statistics,
        "log": progress.log,
    }
    partial = args.out.with_name(args.out.name + ".partial")
    pipeline.save_pretrained(partial)
    write_sheet(partial / "vae_reconstructions.png", held_out, decoded_bchw)
    (partial / "vae_training.json").write_text(json.dumps(report, indent=1))
    if args.out.exists():
        shutil.rmtree(args.out)
    partial.replace(args.out)


if __name__ == "__main__":
    main()
