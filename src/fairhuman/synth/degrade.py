"""Degrade faces and hands, to train a base model for experiments that draws them badly, as SDXL does."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter

from fairhuman.synth.body import Array

_REFERENCE_SIZE = 128


def degrade(image: Array, masks: Sequence[Array], generator: np.random.Generator) -> Array:
    """Blur and warp an image [H, W, 3] inside masks [H, W] (uint8 both); the rest is unchanged.

    At 128 px the image is warped by a smooth random field of 1 to 2.4 px (one standard deviation) with a
    correlation length of 5 px, then blurred with a standard deviation of 1.2 to 2.2 px; both scale with the size.
    """
    scale = image.shape[0] / _REFERENCE_SIZE
    mask = np.maximum.reduce(list(masks)).astype(np.float32) / 255
    soft = gaussian_filter(maximum_filter(mask, max(3, round(3 * scale))), 1.5 * scale)[..., None]
    shift = generator.uniform(0.5, 1.2) * 2 * scale
    grid = np.indices(mask.shape).astype(np.float32)
    for axis in range(2):
        field = gaussian_filter(generator.normal(0, 1, mask.shape), 5 * scale)
        grid[axis] += shift * field / field.std()
    blur = generator.uniform(1.2, 2.2) * scale
    degraded = np.stack(
        [
            gaussian_filter(
                map_coordinates(image[..., channel].astype(np.float32), grid, order=1, mode="nearest"), blur
            )
            for channel in range(3)
        ],
        axis=2,
    )
    mixed: Array = (image * (1 - soft) + degraded * soft + 0.5).clip(0, 255).astype(np.uint8)
    return mixed
