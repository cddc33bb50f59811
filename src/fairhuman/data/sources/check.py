"""Check every picture of a list of records before training."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from PIL import Image

from fairhuman.data.pictures.decode import DEFAULT_LIMITS, PictureLimits, decode, decode_mask, inspect
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, picture_name
from fairhuman.data.sources.rows import MASK_SIZE
from fairhuman.data.sources.rows import STAGE as READ
from fairhuman.record import IGNORE, SUBJECT, Box, Finding, HumanRecord
from fairhuman.regions.boxes import clip_boxes

STAGE = "check"
THREADS = 4
EMPTY_MASK = "mask is empty"
NO_SUBJECT = Finding("warned", EMPTY_MASK, f"mask of {SUBJECT}")
_BLACK = 8  # of 255: compression leaves remainders


def check_records(
    records: Sequence[HumanRecord],
    report: LoadReport,
    full: bool,
    limits: PictureLimits = DEFAULT_LIMITS,
    max_reject_share: float = 0.2,
) -> list[HumanRecord]:
    """Keep the records with usable pictures, and correct sizes that are wrong.

    Args:
        records: from a source or built by hand; their order is kept.
        report: gets the findings; records that it notes as skipped while reading count as rejects too.
        full: decode every picture and painted mask, the only way to find truncated files; otherwise read headers.
        limits: limits of a picture.
        max_reject_share: maximum share of rejects, 0..1, of the given records plus those skipped while reading.

    Returns:
        The usable records. If a picture's real upright size differs from its record's, the real size is used and
        the boxes are clipped again. An unusable painted mask is dropped, and the boxes of its region are used.

    Raises:
        DataError: the share of rejects exceeds `max_reject_share`; names the first ten reasons.
    """
    own = LoadReport()
    kept: list[HumanRecord] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for record, (checked, findings) in zip(records, pool.map(partial(_check, full, limits), records), strict=True):
            for finding in findings:
                own.add(record.location or record.key, STAGE, finding)
            if checked is not None:
                kept.append(checked)
    skipped = [entry for entry in report.skipped() if entry.stage == READ]
    report.extend(own.notes)
    LoadReport(skipped + own.notes).check_share(max_reject_share, len(records) + len(skipped))
    return kept


def _check(full: bool, limits: PictureLimits, record: HumanRecord) -> tuple[HumanRecord | None, list[Finding]]:
    try:
        if full:
            checked, _, findings = decode_record(record, limits)
            return checked, findings
        facts = inspect(record.image, limits)
    except PictureError as error:
        return None, [error.finding]
    return correct_size(record, facts.width, facts.height)


def decode_record(record: HumanRecord, limits: PictureLimits) -> tuple[HumanRecord, Image.Image, list[Finding]]:
    """Decode a record's picture and painted masks: the corrected record, the upright picture, and the findings.

    An empty mask of `subject` says that the picture has none.

    Raises:
        PictureError: the picture can't be used.
    """
    picture = decode(record.image, limits).picture
    checked, findings = correct_size(record, *picture.size)
    masks, boxes = dict(checked.masks), dict(checked.boxes)
    for region, mask in checked.masks.items():
        try:
            painted = decode_mask(mask, limits)
            if painted.size != picture.size:
                raise PictureError(MASK_SIZE, f"{painted.size[0]}x{painted.size[1]}")
        except PictureError as error:
            del masks[region]
            findings.append(error.finding._replace(action="dropped", value=f"mask of {region}: {error.finding.value}"))
            continue
        if not _is_empty(region, painted):
            continue
        findings.append(Finding("warned", EMPTY_MASK, f"mask of {region}"))
        if region == SUBJECT:
            del masks[region]
            boxes[region] = ()
    return replace(checked, masks=masks, boxes=boxes), picture, findings


def _is_empty(region: str, painted: Image.Image) -> bool:
    """Whether the one mask that other trainers know has nothing in it, so that as `ignore` it covers all."""
    levels = painted.histogram()
    return (region == SUBJECT and not any(levels[_BLACK:])) or (region == IGNORE and not any(levels[: 256 - _BLACK]))


def correct_size(record: HumanRecord, width: int, height: int) -> tuple[HumanRecord, list[Finding]]:
    """The record with the picture's real upright size: boxes are clipped to it, masks are dropped if it differs."""
    if (width, height) == (record.width, record.height):
        return record, []
    shown = f"{picture_name(record.image)}: {record.width}x{record.height} stated, {width}x{height} real"
    findings = [Finding("converted", "size was wrong, the picture's own is used", shown)]
    boxes: dict[str, tuple[Box, ...] | None] = {}
    for region, stated in record.boxes.items():
        kept, found = clip_boxes(stated or (), width, height)
        findings += found
        boxes[region] = (kept or None) if stated else stated
    findings += [Finding("dropped", MASK_SIZE, f"mask of {name}") for name in record.masks]
    return replace(record, width=width, height=height, boxes=boxes, masks={}), findings
