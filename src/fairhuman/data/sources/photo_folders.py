"""Folders of photos as other trainers have them: captions beside the photos, one mask a photo, repeats."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.columns import ONE_MASK
from fairhuman.data.sources.folder import PictureWithCaption, composed, find_pictures, folder_rows, read_caption
from fairhuman.data.sources.rows import STAGE, Row, printable
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten

MASK_FOLDERS = ("mask", "masks", "conditioning", "conditioning_data")
_OUT = "path leaves the folder of the data set"  # as `locate` says of paths relative to the root
_NAMES: Mapping[type, str] = {dict: "mappings", str: "texts"}
ItemT = TypeVar("ItemT")
PARENTS = 3  # folders above a configuration in which its relative paths are looked for


@dataclass(frozen=True)
class PhotoFolder:
    """A folder of photos, and how it is read.

    Attributes:
        path: the folder.
        masks: folder of masks, which have the names of the photos with any ending.
        paired: masks by the photo, relative to `path`, where they aren't in a folder of their own.
        repeats: how often an epoch contains each photo.
        deep: whether subfolders are read too.
        suffix: ending of the caption files; None: .txt or .caption.
        captions: whether caption files are read.
        listed: captions by the names of photos, relative to `path`, before those in files.
        default: caption of a photo without one of its own.
        prefix, ending: text before and after each caption.
        trigger: word for `[trigger]` and `[name]` in captions; None: they stay as they are.
        begin: whether the trigger begins a caption that doesn't have it.
        first_line: whether the first line of a caption file is the caption; the trainer has a caption a line.
        alpha: whether the opacity of a photo is its mask.
        inverted: whether the masks are black where they would be white.
    """

    path: Path
    masks: Path | None = None
    paired: Mapping[str, str] | None = None
    repeats: int = 1
    deep: bool = True
    suffix: str | None = None
    captions: bool = True
    listed: Mapping[str, str] | None = None
    default: str | None = None
    prefix: str = ""
    ending: str = ""
    trigger: str | None = None
    begin: bool = True
    first_line: bool = False
    alpha: bool = False
    inverted: bool = False


def photo_rows(folder: PhotoFolder, root: Path, report: LoadReport, leave_out: Sequence[str] = ()) -> Iterator[Row]:
    """Photos in the order of their names; names in `leave_out`, relative to the folder, are no photos.

    Locations are relative to `root` where they are in it. Folders of masks among the photos are found by their names
    (see `pair_masks`). Masks that belong to no photo are noted, and, of a folder with masks, photos that have none.

    Raises:
        DataError: a folder isn't there.
    """
    for place in (folder.path, folder.masks):
        if place is not None and not place.is_dir():
            raise DataError(f"{place}: there is no such folder")
    inside = None if folder.masks is None else _relative(folder.masks, folder.path)
    unwanted = set(leave_out)
    photos = [
        found
        for found in find_pictures(folder.path, report)
        if (folder.deep or "/" not in found.name)
        and found.name not in unwanted
        and not (inside is not None and found.name.startswith(f"{inside}/"))
    ]
    among = pair_masks([photo.name for photo in photos], report)
    photos = [photo for photo in photos if photo.name not in among.masks]
    masks: dict[str, str | Path] = {**among.of_photo, **(folder.paired or {})}
    if folder.masks is not None:
        given = [found.name for found in find_pictures(folder.masks, report)]
        paired = _pair(given, [photo.name for photo in photos], f"{folder.masks.name}/", report)
        masks |= {photo: folder.masks / mask for photo, mask in paired.items()}
    for photo in photos:
        location = _place(folder.path / photo.name, root)
        if _leaves(folder.path / photo.name, folder.path):
            report.add(printable(str(location)), STAGE, Finding("skipped", _OUT, printable(photo.name)))
            continue
        values: dict[str, Any] = {"file_name": location, "key": printable(str(location))}
        if (caption := _caption(folder, photo, report)) is not None:
            values["caption"] = caption
        mask = masks.get(photo.name)
        place = folder.path / mask if isinstance(mask, str) else mask
        if place is not None and _leaves(place, folder.masks or folder.path):
            report.add(values["key"], STAGE, Finding("dropped", _OUT, printable(str(mask))))
        elif place is not None:
            values[ONE_MASK] = {"path": _place(place, root), "inverted": folder.inverted}
        elif folder.alpha:
            values[ONE_MASK] = {"path": location, "alpha": True, "inverted": folder.inverted}
        elif masks:
            report.add(values["key"], STAGE, Finding("warned", "photo has no mask, though others have"))
        if folder.repeats != 1:
            values["repeats"] = folder.repeats
        yield Row(values["key"], values)


def configured_rows(
    folder: PhotoFolder, config: Path, given: Path, report: LoadReport, leave_out: Sequence[str] = ()
) -> Iterator[Row]:
    """Photos of a folder that a trainer's configuration names, as `photo_rows` yields them.

    A configuration that the user gave may name any folder. One that was found in a folder that the user gave came with
    the data set, so it may only name folders in that one, links resolved.

    Args:
        folder: the folder, as the configuration has it.
        config: the configuration.
        given: the path that the user gave: the configuration, or the folder that it was found in.
        report: gets the findings.
        leave_out: as of `photo_rows`.

    Raises:
        DataError: a folder isn't there, or leads out of `given`.
    """
    if given.is_dir():
        for place in (folder.path, folder.masks):
            if place is not None and not place.resolve().is_relative_to(given.resolve()):
                raise DataError(
                    f"{config}: names {place}, which is outside of {given}; a configuration that is found in a folder "
                    f"may only name folders in it. If you trust it, give the file itself: data={config}"
                )
    yield from photo_rows(folder, given if given.is_dir() else given.parent, report, leave_out)


class PairedMasks(NamedTuple):
    """Pictures that are masks, and the mask of each photo that has one; all by their names."""

    masks: frozenset[str]
    of_photo: Mapping[str, str]


def pair_masks(names: Sequence[str], report: LoadReport) -> PairedMasks:
    """Tell masks from photos, at any depth, and find the photo of each.

    A folder holds masks if it is called so and one of its pictures is named as a photo beside it, or in a folder
    beside it. Masks that belong to no photo are noted.

    Args:
        names: pictures, relative to the folder of all.
        report: gets the findings.
    """
    inside: dict[str, list[str]] = {}  # what is in a folder called so, by that folder
    photos: list[str] = []
    for name in names:
        folder = next((above for above in _above(name) if _is_called_masks(above)), None)
        (photos if folder is None else inside.setdefault(folder, [])).append(name)
    beside: dict[str, list[str]] = {_parent(folder): [] for folder in inside}
    for name in photos if inside else ():
        for above in _above(name):
            if above in beside:
                beside[above].append(name)
    masks: set[str] = set()
    of_photo: dict[str, str] = {}
    for folder, own in inside.items():
        parent = _parent(folder)
        others = [name.removeprefix(parent) for name in beside[parent]]
        if {_stem(name, base=True) for name in own} & {_stem(name, base=True) for name in others}:
            masks.update(own)
            paired = _pair([name.removeprefix(folder) for name in own], others, folder, report)
            of_photo |= {parent + photo: folder + mask for photo, mask in paired.items()}
    return PairedMasks(frozenset(masks), of_photo)


def has_masks(path: Path) -> bool:
    """Whether a folder has one of masks in it, by its name and because a mask is named as a photo elsewhere.

    A link isn't followed: it may lead anywhere.
    """
    if not path.is_dir() or not any(_is_called_masks(one.name) and one.is_dir() for one in path.iterdir()):
        return False
    masks = pair_masks([found.name for found in find_pictures(path, LoadReport())], LoadReport()).masks
    return any(_is_called_masks(name.partition("/")[0]) for name in masks)


def note_masks_beside(path: Path, report: LoadReport) -> None:
    """Note folders of masks that aren't read: beside this one, of its photos; in it, a link that leads out of it."""
    for folder in sorted(path.iterdir()) if path.is_dir() else ():
        if folder.name.lower() in MASK_FOLDERS and folder.is_dir() and _leaves(folder, path):
            report.add(printable(folder.name), STAGE, Finding("dropped", _OUT, printable(folder.name)))
    beside = _masks_beside(path)
    if beside is not None:
        why = "masks beside the folder are not read: give the folder above"
        report.add(printable(path.name), STAGE, Finding("warned", why, printable(beside.name)))


def _masks_beside(path: Path) -> Path | None:
    """The folder beside this one whose pictures are masks of its photos, by its name and theirs."""
    try:
        beside = [one for one in path.absolute().parent.iterdir() if one.name.lower() in MASK_FOLDERS and one.is_dir()]
    except OSError:  # the folder above can't be listed
        return None
    beside = sorted(folder for folder in beside if folder != path.absolute() and not _leaves(folder, folder.parent))
    photos = {_stem(found.name, base=True) for found in find_pictures(path, LoadReport())} if beside else set()
    for folder in beside:
        if any(_stem(found.name, base=True) in photos for found in find_pictures(folder, LoadReport())):
            return folder
    return None


def plain_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """Pictures of a folder of no trainer, in the order of their names, with the masks among them.

    Masks beside the folder are noted.
    """
    note_masks_beside(folder, report)
    names = (found.name for found in find_pictures(folder, LoadReport()))
    if not any(_is_called_masks(above) for name in names for above in _above(name)):  # so that no name is kept
        yield from folder_rows(folder, report)
        return
    among = pair_masks([found.name for found in find_pictures(folder, LoadReport())], report)
    for row in folder_rows(folder, report):
        name = row.values["file_name"]
        if name not in among.masks:
            mask = among.of_photo.get(name)
            yield row if mask is None else Row(row.location, {**row.values, ONE_MASK: {"path": mask}})


def configured_folder(config: Path, value: Any, what: str) -> Path:
    """The folder that a trainer's configuration names: as it stands, or relative to the configuration, to a folder
    above it or to the current one.

    Raises:
        DataError: it isn't there.
    """
    if not isinstance(value, str) or not value:
        raise DataError(f"{config}: {what} must be the path of a folder, not {shorten(repr(value))}")
    places = [config.absolute().parent, *list(config.absolute().parent.parents)[:PARENTS], Path.cwd()]
    try:
        named = Path(value).expanduser()
        found = next((place / named for place in places if (place / named).is_dir()), None)
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a home that isn't there, a null byte
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{config}: {what} must be the path of a folder, not {shorten(repr(value))} ({reason})"
        ) from error
    if found is None:
        raise DataError(
            f"{config}: {what} is {value}, but there is no such folder; put the folder there, or correct the path"
        )
    return Path(os.path.normpath(found))


def whole_number(config: Path, value: Any, what: str, least: int = 1) -> int:
    """A whole number of a trainer's configuration.

    Raises:
        DataError: it isn't one, or too small.
    """
    if type(value) is not int or value < least:
        raise DataError(f"{config}: {what} must be a whole number of at least {least}, not {shorten(repr(value))}")
    return value


def plain_text(config: Path, value: Any, what: str) -> str | None:
    """A text of a trainer's configuration; None where it is empty or isn't there.

    Raises:
        DataError: it isn't a text.
    """
    if not isinstance(value, str | None):
        raise DataError(f"{config}: {what} must be a text, not {shorten(repr(value))}; put it in quotes")
    return value or None


def caption_suffix(config: Path, value: Any, what: str) -> str | None:
    """The ending of caption files, with its dot, which the configuration may leave out; None where it states none.

    Raises:
        DataError: it isn't one.
    """
    ending = plain_text(config, value, what)
    suffix = ending if ending is None or ending.startswith(".") else f".{ending}"
    if suffix is not None and (suffix.endswith(".") or "/" in suffix or "\0" in suffix):
        raise DataError(
            f"{config}: {what} must be the ending of a file's name, such as .txt, not {shorten(repr(value))}"
        )
    return suffix


def list_of(kind: type[ItemT], config: Path, value: Any, what: str) -> Sequence[ItemT]:
    """A list of a trainer's configuration, all of one kind; empty where it isn't there.

    Raises:
        DataError: it isn't a list, or another kind is in it.
    """
    if value is None:
        return ()
    other = value if not isinstance(value, list) else next((one for one in value if not isinstance(one, kind)), None)
    if not isinstance(value, list) or other is not None:
        raise DataError(f"{config}: {what} must be a list of {_NAMES[kind]}, found {shorten(repr(other))}")
    return value


def _pair(masks: Sequence[str], photos: Sequence[str], folder: str, report: LoadReport) -> dict[str, str]:
    """Masks by photo: of the same path in both folders, otherwise of the same name where just one photo has it.

    Masks are relative to their `folder`, photos to the one that it belongs to.
    """
    by_path = {_stem(name): name for name in reversed(photos)}
    count = Counter(_stem(name, base=True) for name in photos)
    by_name = {_stem(name, base=True): name for name in reversed(photos)}
    paired: dict[str, str] = {}
    for mask in masks:
        stem, base = _stem(mask), _stem(mask, base=True)
        photo = by_path.get(stem) or (by_name.get(base) if count[base] == 1 else None)
        if photo is None or photo in paired:
            why = "is that of several photos" if count[base] > 1 else "matches no photo"
            why = "is a second one of its photo" if photo in paired else why
            report.add(printable(folder + mask), STAGE, Finding("dropped", f"mask {why}", printable(mask)))
        else:
            paired[photo] = mask
    return paired


def _is_called_masks(folder: str) -> bool:
    return folder.removesuffix("/").rpartition("/")[2].lower() in MASK_FOLDERS


def _above(name: str) -> Iterator[str]:
    """The folders that a picture is in, outermost first: "" for `a/b.jpg`, then "a/"."""
    yield ""
    for at, character in enumerate(name):
        if character == "/":
            yield name[: at + 1]


def _parent(folder: str) -> str:
    """The folder that a folder is in, both as of `_above`."""
    return folder[: folder.rstrip("/").rfind("/") + 1]


def _caption(folder: PhotoFolder, photo: PictureWithCaption, report: LoadReport) -> str | None:
    name = photo.caption
    if folder.suffix is not None:
        names = (str(PurePosixPath(photo.name).with_suffix(folder.suffix)), photo.caption or "")
        name = next((one for one in names if one.endswith(folder.suffix) and (folder.path / one).is_file()), None)
    text = read_caption(folder.path / name, report) if name is not None and folder.captions else None
    if text and folder.first_line and "\n" in text:
        text = text.splitlines()[0].strip()
        finding = Finding("warned", "only the first of several captions is used", text)
        report.add(printable(name or photo.name), STAGE, finding)
    text = (folder.listed or {}).get(photo.name) or text or folder.default
    if folder.trigger is not None:
        text = (text or "").replace("[trigger]", folder.trigger).replace("[name]", folder.trigger)
        ahead = folder.trigger if folder.begin and folder.trigger not in text else ""
        text = f"{ahead} {text}".strip()
    text = f"{folder.prefix}{text or ''}{folder.ending}".strip()
    return text or None


def _stem(name: str, base: bool = False) -> str:
    """A name without its ending, as `composed`; with `base`, without its folders too."""
    path = PurePosixPath(composed(name))
    return path.stem if base else str(path.with_suffix(""))


def _relative(path: Path, folder: Path) -> str | None:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) and path != folder else None


def _leaves(file: Path, folder: Path) -> bool:  # find_pictures follows no folder that is a link
    try:
        return file.is_symlink() and not file.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links, a RuntimeError before Python 3.13: it is named where it is read
        return False


def _place(path: Path, root: Path) -> str | Path:
    """A path relative to the root: a text, or a `Path` if it lies outside (see `locate`)."""
    path, root = path.absolute(), root.absolute()
    return _relative(path, root) or Path(os.path.relpath(path, root))
