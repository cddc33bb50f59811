"""What a run shows of its pictures: the resolution of each, the order, and what is said about it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import picture_name
from fairhuman.data.samples.buckets import Size, log_aspects, nearest_resolutions
from fairhuman.data.samples.coverage import ViewCoverage, enlarged
from fairhuman.data.samples.dataset import PeopleDataset
from fairhuman.data.samples.order import SourceShare, bucketed_order, mixed_order
from fairhuman.data.samples.sampler import BucketOrder, Order
from fairhuman.errors import DataError
from fairhuman.fairness.distributed import world_size
from fairhuman.record import Finding, HumanRecord, region_column
from fairhuman.regions.transforms import JointTransform
from fairhuman.report.text import whole_percent
from fairhuman.train.recipe import TrainRecipe

FEW_WHOLE = 0.8  # a run warns below this share of a region's boxes that are whole in view
TOO_SMALL = "smaller than the training size, enlarged"
NAMED = 3  # small pictures that a message names


def training_transform(recipe: TrainRecipe) -> JointTransform:
    """Return the resize, crop and flip of training samples."""
    view = recipe.view
    return JointTransform(recipe.size, view.crop, view.flip_probability, view.keep_region, view.zoom)


def training_order(recipe: TrainRecipe, shares: Sequence[SourceShare], train: Sequence[HumanRecord]) -> Order:
    """Return the order of the training samples, in buckets if set."""
    view = recipe.view
    if view.bucket_aspect is None:
        return mixed_order(recipe.seed, shares)
    order = bucketed_order(
        recipe.seed, shares, _sizes(train), recipe.sizes, recipe.samples(world_size()), view.bucket_crop
    )
    # Pictures of the resolution's shape are trained on in the same order with buckets and without.
    plain = view.bucket_area is not None and list(order.resolutions) == [recipe.size]
    return mixed_order(recipe.seed, shares) if plain else order


def held_out_resolutions(
    recipe: TrainRecipe, training: PeopleDataset, held_out: Sequence[HumanRecord]
) -> list[Size] | None:
    """Return (height, width) of each held-out sample; None without buckets.

    It is that of the nearest bucket of the training samples, or of any bucket if that would crop more than
    `view.bucket_crop`.
    """
    if recipe.view.bucket_aspect is None:
        return None
    order, sizes = training.order, _sizes(held_out)
    known = list(order.resolutions) if isinstance(order, BucketOrder) else [recipe.size]
    near, best = nearest_resolutions(sizes, known), nearest_resolutions(sizes, recipe.sizes)
    cropped = 1.0 - np.exp(-np.abs(log_aspects(sizes) - log_aspects(near)))
    pairs = zip(near, best, cropped <= recipe.view.bucket_crop, strict=True)
    return [a if close else b for a, b, close in pairs]


def note_enlarged(data: PeopleDataset, report: LoadReport) -> None:
    """Note each picture that has to be enlarged, with its size and that of its view."""
    shown = data.resolutions_of_records()
    for number in enlarged(data.records, shown):
        record, (height, width) = data.records[number], shown[number]
        value = f"{record.width} x {record.height}, shown at {width} x {height}"
        report.add(record.location or record.key, "view", Finding("warned", TOO_SMALL, value))


def describe_enlarged(data: PeopleDataset) -> str | None:
    """Return a line that counts and names the pictures that have to be enlarged; None if there are none."""
    small = [data.records[number] for number in enlarged(data.records, data.resolutions_of_records())]
    if not small:
        return None
    names = ", ".join(f"{_name(one)} ({one.width} x {one.height})" for one in small[:NAMED])
    more = f" and {len(small) - NAMED} more" if len(small) > NAMED else ""
    return (
        f"{len(small)} of {len(data)} pictures are smaller than the training size and are enlarged: {names}{more} "
        "(data_report.json names all)"
    )


def _name(record: HumanRecord) -> str:
    """A record's file, or its key where its picture isn't a file of its own."""
    return picture_name(record.image) if isinstance(record.image, Path) else record.key


def check_close_ups(recipe: TrainRecipe, data: PeopleDataset) -> None:
    """Check that there is a close-up of each region that `view.close_up` names, by its boxes if it has no painted mask.

    Raises:
        DataError: no picture has a box of the region, or all have too few pixels of it.
    """
    for region, (boxes, shown) in _close_ups(data).items():
        if not shown and not any(region in record.masks for record in data.records):
            why = f"all {boxes} boxes are of too few pixels" if boxes else "no record has a box of it"
            raise DataError(
                f"{recipe.data_name}: view.close_up names {region!r}, but {why}: larger pictures, a smaller "
                "resolution or a larger view.close_up_size would show them larger"
            )


def close_up_lines(data: PeopleDataset) -> list[str]:
    """Say how many boxes of each region close-ups can show."""
    return [
        f"close-ups can show {shown:,} of {boxes:,} {region_column(region)}; the others are of too few pixels, so "
        "their whole view is shown"
        for region, (boxes, shown) in _close_ups(data).items()
        if shown < boxes
    ]


def _close_ups(data: PeopleDataset) -> dict[str, tuple[int, int]]:
    """Each region of which there should be close-ups to its number of boxes, and of those that can be shown."""
    if data.close_ups is None:
        return {}
    counts = dict.fromkeys(data.close_ups.shares, (0, 0))
    for record, resolution in zip(data.records, data.resolutions_of_records(), strict=True):
        transform, size = replace(data.transform, resolution=resolution), (record.height, record.width)
        whole = transform.draw(torch.Generator(), size)
        boxes = {region: record.boxes.get(region) or () for region in counts}
        for region, (number, shown) in data.close_ups.possible(transform, whole, size, boxes).items():
            counts[region] = (counts[region][0] + number, counts[region][1] + shown)
    return counts


def view_lines(recipe: TrainRecipe, data: PeopleDataset, coverage: ViewCoverage) -> list[str]:
    """Return what to say about a run's views: the regions whole in view, small pictures, warnings."""
    lines = [coverage.whole(name) for name in recipe.regions.names]
    lines += close_up_lines(data)
    return [line for line in (*lines, describe_enlarged(data), *view_warnings(recipe, coverage)) if line]


def view_warnings(recipe: TrainRecipe, coverage: ViewCoverage) -> list[str]:
    """Return a line for each region of which less than 80 % of the boxes are whole in view, with the setting to change.

    The line says which setting would show more: the first that crops more than it has to.
    """
    view = recipe.view
    if view.bucket_aspect is None:
        change = "view.bucket_aspect=auto shows nearly whole pictures"
    elif view.keep_region < 1.0:
        change = "view.keep_region=1 places crops so that they are"
    elif view.zoom != (1.0, 1.0):
        change = "view.zoom=[1,1] shows as much as possible"
    elif view.bucket_aspect != "auto":
        change = "view.bucket_aspect=auto has buckets for all pictures"
    else:
        change = "a smaller view.bucket_step has buckets of more shapes"
    return [
        f"warning: only {whole_percent(found.whole)} of {region_column(name)} are whole in view; {change}"
        for name, found in coverage.regions.items()
        if found.whole < FEW_WHOLE
    ]


def _sizes(records: Sequence[HumanRecord]) -> list[Size]:
    return [(record.height, record.width) for record in records]
