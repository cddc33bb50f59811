"""One optimiser step of any model: noise, predict, K losses, one fair direction.

    noisy = add_noise(encode(pictures), noise, t)
    e     = predict(noisy, t, captions, time ids) - target
    d     = predict(...) - predict(...) of the frozen base  (with regions.prior alone)
    L_k   = Σ v m_k e² / denominator_k                     (regions/objectives.py)
    .grad = scale · Σ w_k ∇L_k                              (fairness/backward.py)

All randomness of a sample comes from a generator seeded by (seed, position), where the position counts samples since
the start of the run. So a step depends neither on earlier steps nor, without `lora.dropout`, on how its samples are
divided over micro-batches and processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.profiler import record_function

from fairhuman.bases.base import Base, base_of
from fairhuman.bases.noising import Noising
from fairhuman.data.samples.batch import Batch
from fairhuman.fairness import FairBackward, FairStep, Output
from fairhuman.fairness.distributed import world_size
from fairhuman.models.lora import LoraModel
from fairhuman.models.model import Model
from fairhuman.regions.objectives import denominators, masked_losses, objective_masks, split_by_band, with_prior
from fairhuman.regions.settings import RegionSettings
from fairhuman.train.cache.latents import LatentCache
from fairhuman.train.cache.texts import TextCache
from fairhuman.train.densities import LevelDensities
from fairhuman.train.settings import NoiseSettings
from fairhuman.utils.randomness import Stream, seeded_generator

Precision = torch.dtype | None
Moments = tuple[Tensor, Tensor]  # mean and standard deviation [B, C, h, w] of latents
# Names of a step's parts in a profiler trace.
PARTS = {name: f"fairhuman: {name}" for name in ("loading", "latents", "prediction", "direction", "optimizer")}


class NoiseDraw(NamedTuple):
    """Random draws for the samples of a batch: standard normals [B, C, h, w] and noise levels [B].

    weights_b: of the samples' losses, other than 1 for levels that aren't drawn as the base draws them.
    """

    encoding_bchw: Tensor
    noise_bchw: Tensor
    levels_b: Tensor
    weights_b: Tensor = torch.ones(())


@dataclass(frozen=True)
class Objectives:
    """The K losses of a model on batches.

    precision: the autocast dtype; None: no autocast.
    latents, texts: caches of the VAE and of the text encoders; None: encode every time.
    bands: into how many the global loss is split in training; 1: it isn't.
    """

    model: Model
    regions: RegionSettings
    noise: NoiseSettings
    seed: int
    precision: Precision = None
    latents: LatentCache | None = None
    texts: TextCache | None = None
    bands: int = 1

    @cached_property
    def base(self) -> Base:
        """The base of the model."""
        return base_of(self.model.pipeline)

    @cached_property
    def noising(self) -> Noising:
        """The base's noise process."""
        return self.base.noising(self.noise.times)

    def masks(self, batch: Batch) -> Tensor:
        """Return m [B, K, h, w] on the latent grid.

        A close-up counts for its region alone, by the area that the region has in the whole view.
        """
        masks_bkhw = objective_masks(batch.masks_brhw, self.base.factor, batch.ignored_bhw)
        if batch.area_scale_b is None:
            return masks_bkhw
        scale_b1 = batch.area_scale_b[:, None]
        factors_bk = torch.cat([(scale_b1 == 1.0).to(scale_b1), scale_b1.expand(-1, masks_bkhw.shape[1] - 1)], dim=1)
        return masks_bkhw * factors_bk[:, :, None, None]

    def masks_and_noise(self, batch: Batch) -> tuple[Tensor, NoiseDraw]:
        """Return m [B, K, h, w] of a step's objectives, and the noise that is drawn for them.

        m is `masks` and the prior's, with the global one in bands if split. Bands hold equal shares of the base's own
        draws; log SNR falls from band to band.
        """
        masks_bkhw = self.masks(batch)
        size = masks_bkhw.shape[-2:]
        draw = self._draw(batch, size, self._seen(masks_bkhw))
        step_bkhw = with_prior(masks_bkhw) if self.regions.prior else masks_bkhw
        if self.bands > 1:
            band_b = self.noising.bands(draw.levels_b, self.bands, self._tokens(size))
            step_bkhw = split_by_band(step_bkhw, band_b, self.bands)
        return step_bkhw, draw

    def counted_cells(self, batch: Batch) -> Tensor:
        """Return Σ (1 - i), the number of latent cells that count, those of close-ups included."""
        return objective_masks(batch.masks_brhw[:, :0], self.base.factor, batch.ignored_bhw).sum()

    def losses(
        self, batch: Batch, masks_bkhw: Tensor, draw: NoiseDraw, denominators_k: Tensor
    ) -> tuple[list[Tensor | None], Output]:
        """Return the batch's contribution to each loss, None for absent objectives, and the output they depend on.

        Args:
            batch: of a step.
            masks_bkhw, draw: see `masks_and_noise`.
            denominators_k: see `regions.objectives.denominators`.
        """
        of_data = masks_bkhw[:, :-1] if self.regions.prior else masks_bkhw
        prediction_bchw, target_bchw, prior_bchw = self._predict(batch, draw, prior=self.regions.prior)
        residual_bchw = prediction_bchw - target_bchw
        weights_b = draw.weights_b * self.noising.weights(draw.levels_b, self.noise.min_snr_gamma)
        first, *regions = self.regions.factors()
        factors_k = denominators_k.new_tensor([first] * self.bands + regions)
        k, log_snr_b = of_data.shape[1], self.noising.log_snr(draw.levels_b)
        losses = masked_losses(residual_bchw, weights_b, of_data, denominators_k[:k], factors_k[:k])
        if prior_bchw is None:
            return losses, Output(residual_bchw, log_snr_b)
        drift_bchw = prediction_bchw - prior_bchw
        losses += masked_losses(drift_bchw, weights_b, masks_bkhw[:, k:], denominators_k[k:], factors_k[k:])
        return losses, Output(prediction_bchw, log_snr_b)

    def encoded(self, batch: Batch) -> tuple[Batch, Moments]:
        """Return the batch with its texts, and its latents' moments, for several residuals; without gradients."""
        device = batch.pictures_bchw.device.type
        with torch.no_grad(), torch.autocast(device, self.precision, enabled=self.precision is not None):
            texts = self.base.texts(batch.captions) if self.texts is None else self.texts.texts(batch.captions)
        return replace(batch, texts=texts), self._moments(batch)

    def residual(self, batch: Batch, draw: NoiseDraw, moments: Moments | None = None) -> Tensor:
        """Return e [B, C, h, w], float32: the prediction minus the target of the base's noising.

        `moments` are those of `encoded`, with its batch; None: they are computed.
        """
        prediction_bchw, target_bchw, _ = self._predict(batch, draw, moments=moments)
        return prediction_bchw - target_bchw

    def _predict(
        self, batch: Batch, draw: NoiseDraw, prior: bool = False, moments: Moments | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return prediction, target and the frozen base's prediction, if it is asked for; all [B, C, h, w], float32."""
        with record_function(PARTS["latents"]):
            mean_bchw, std_bchw = self._moments(batch) if moments is None else moments
            latents = mean_bchw + std_bchw * draw.encoding_bchw
            noisy = self.noising.add(latents, draw.noise_bchw, draw.levels_b)
        with record_function(PARTS["prediction"]):
            batch = batch if self.texts is None or batch.texts is not None else self.texts.with_texts(batch)
            with torch.autocast(latents.device.type, self.precision, enabled=self.precision is not None):
                base_bchw = self._base_prediction(batch, noisy, draw.levels_b) if prior else None
                prediction = self.model.predict(batch, noisy, draw.levels_b)
        return prediction.float(), self.noising.target(latents, draw.noise_bchw, draw.levels_b), base_bchw

    def _base_prediction(self, batch: Batch, noisy_bchw: Tensor, levels_b: Tensor) -> Tensor:
        """Return the prediction without the LoRA, float32; before that with it, since its layers are switched."""
        assert isinstance(self.model, LoraModel), "the recipe allows regions.prior for kind=lora alone"
        with self.model.without_updates():
            return self.model.predict(batch, noisy_bchw, levels_b).float()

    def _moments(self, batch: Batch) -> Moments:
        """Return mean and standard deviation of the batch's latents, from the cache if there is one."""
        return self.base.moments(batch.pictures_bchw) if self.latents is None else self.latents.moments(batch)

    @cached_property
    def _densities(self) -> LevelDensities | None:
        density = self.noise.density
        return LevelDensities(density, self.regions.objectives) if density else None

    def _seen(self, masks_bkhw: Tensor) -> list[list[bool]] | None:
        """Which objectives each sample has, [B][1 + R]; None if levels don't depend on it."""
        if self._densities is None:
            return None
        found: list[list[bool]] = (masks_bkhw.sum(dim=(2, 3)) > 0).tolist()
        return found

    def _tokens(self, size: Sequence[int]) -> int:
        return size[0] * size[1] // self.base.patch**2

    def _draw(self, batch: Batch, size: Sequence[int], seen: Sequence[Sequence[bool]] | None = None) -> NoiseDraw:
        channels, tokens = self.base.channels, self._tokens(size)
        encodings, noises, levels, weights = [], [], [], []
        for number, position in enumerate(batch.positions_b.tolist()):
            generator = seeded_generator(self.seed, Stream.NOISE, position)
            encodings.append(torch.randn(channels, *size, generator=generator))
            offset = self.noise.offset * torch.randn(channels, 1, 1, generator=generator)
            noises.append(torch.randn(channels, *size, generator=generator) + offset)
            if self._densities is None or seen is None:
                levels.append(self.noising.draw(generator, tokens))
                weights.append(1.0)
            else:
                drawn = self._densities.draw(generator, seen[number])
                levels.append(self.noising.quantile(drawn.rank, tokens))
                weights.append(drawn.weight)
        device = batch.pictures_bchw.device
        return NoiseDraw(
            torch.stack(encodings).to(device),
            torch.stack(noises).to(device),
            torch.stack(levels).to(device),
            torch.tensor(weights, device=device),
        )


def fair_step(
    objectives: Objectives, fair: FairBackward, batches: Sequence[Batch], measure: bool = False
) -> tuple[FairStep, Tensor]:
    """Process this process's micro-batches of one optimiser step; write the fair direction into `.grad`.

    Returns:
        The result of `FairBackward`, and Σ m [K] over all samples of the step in all processes.
    """
    parts = [objectives.masks_and_noise(batch) for batch in batches]
    areas_k = torch.stack([masks_bkhw.sum(dim=(0, 2, 3)) for masks_bkhw, _ in parts]).sum(dim=0)
    cells_1 = torch.stack([objectives.counted_cells(batch) for batch in batches]).sum(dim=0, keepdim=True)
    processes = world_size()
    if processes > 1:
        sums = torch.cat([areas_k, cells_1])
        dist.all_reduce(sums)
        areas_k, cells_1 = sums[:-1], sums[-1:]
    channels = objectives.base.channels
    # Losses are sums over all processes, but gradients are averaged: so multiply by the number of processes.
    normalize, bands = objectives.regions.normalize, objectives.bands
    denominators_k = denominators(areas_k, cells_1, channels, normalize, bands) / processes
    present = (areas_k > 0.0).tolist()
    step: FairStep | None = None
    for number, (batch, (masks_bkhw, draw)) in enumerate(zip(batches, parts, strict=True), start=1):
        losses, output = objectives.losses(batch, masks_bkhw, draw, denominators_k)
        with record_function(PARTS["direction"]):
            step = fair(losses, output=output, sync=number == len(batches), measure=measure, present=present)
    assert step is not None
    return step, areas_k
