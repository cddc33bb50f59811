"""Small samples of the formats of published sets: their layout and field names, drawn pictures."""

import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from helpers.figures import write_figures

SIZE = 64
HAIR, FACE, DRESS = 2, 11, 7  # classes of ATR


class Person(NamedTuple):
    picture: Image.Image
    caption: str
    face: list[float]
    hands: list[list[float]]

    @property
    def body(self) -> list[float]:
        return [4.0, 4.0, 60.0, 64.0]


def people(count: int) -> list[Person]:
    """Drawn people; their boxes have whole numbers."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_figures(folder, count, SIZE, seed=4)
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
        whole = [([round(x) * 1.0 for x in box] for box in [*row["faces"], *row["hands"]]) for row in rows]
        pictures = [Image.open(folder / row["file_name"]).convert("RGB") for row in rows]
    return [
        Person(picture, row["caption"], face, hands)
        for picture, row, (face, *hands) in zip(pictures, rows, whole, strict=True)
    ]


def jpeg(picture: Image.Image) -> bytes:
    target = io.BytesIO()
    picture.save(target, "JPEG", quality=90)
    return target.getvalue()


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


# Groups 0..19 of `aa_text`, named by their keys in dataset.py of cosmicman-cvpr2024/CosmicMan.
AA_TEXT: list[dict[str, str] | None] = [
    {"country": "Caucasian", "age": "elderly", "gender": "woman"},
    {"body shape": "fit"},
    {"background": "natural landscape"},
    {"hair color": "white", "hair style": "wavy", "hair length": "above shoulders"},
    None,
    {"pattern": "floral", "material": "cotton", "sleeve length": "long sleeve", "type": "dress"},
    *[None] * 14,
]
AA_IDS: list[list[int] | None] = [[FACE], [0], [0], [HAIR], None, [DRESS], *[None] * 14]


def write_cosmicman(root: Path, count: int = 4) -> list[Person]:
    found = people(count)
    rows = []
    for number, person in enumerate(found):
        name = f"laion1B-nolang/00000/{number:09d}"
        put(root / "LAION-5B" / f"{name}.jpg", jpeg(person.picture))
        map_hw = np.zeros((SIZE, SIZE), np.uint8)
        map_hw[SIZE // 2 :, 8:-8] = DRESS
        x0, y0, x1, y1 = map(int, person.face)
        map_hw[y0 - 2 : y0, x0:x1], map_hw[y0:y1, x0:x1] = HAIR, FACE
        path = root / "LAION-5B-Pasing" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(map_hw).save(path)
        rows.append(
            {
                "path": f"LAION-5B/{name}.jpg",
                "segm_path": f"LAION-5B-Pasing/{name}.png",
                "width": float(SIZE),
                "height": float(SIZE),
                "aa_text": json.dumps(AA_TEXT),
                "aa_ids": json.dumps(AA_IDS),
                "person_type": "full_body",
            }
        )
    (root / "label").mkdir()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), root / "label" / "laion1B-nolang_0.parquet")
    return found


def write_bodyhands(root: Path, count: int = 4) -> list[Person]:
    found = people(count)
    for number, person in enumerate(found):
        tree = ElementTree.Element("annotation")
        ElementTree.SubElement(tree, "filename").text = f"{number:06d}.jpg"
        size = ElementTree.SubElement(tree, "size")
        for name, value in {"width": SIZE, "height": SIZE, "depth": 3}.items():
            ElementTree.SubElement(size, name).text = str(value)
        for kind, box in [*(("hand", hand) for hand in person.hands), ("body", person.body)]:
            thing = ElementTree.SubElement(tree, "object")
            ElementTree.SubElement(thing, "name").text = kind
            ElementTree.SubElement(thing, "body_id").text = "1"
            corners = ElementTree.SubElement(thing, "bndbox")
            x0, y0, x1, y1 = box[0] + 1, box[1] + 1, box[2], box[3]  # from 1, the last pixel inside
            values = {"xmin": x0, "ymin": y0, "xmax": x1, "ymax": y1}
            if kind == "hand":
                values |= {"x1": x0, "y1": y0, "x2": x1, "y2": y0, "x3": x1, "y3": y1, "x4": x0, "y4": y1}
            for name, value in values.items():
                ElementTree.SubElement(corners, name).text = str(value)
        put(root / "Annotations" / f"{number:06d}.xml", ElementTree.tostring(tree))
        put(root / "JPEGImages" / f"{number:06d}.jpg", jpeg(person.picture))
    names = [f"{number:06d}" for number in range(count)]
    put(root / "ImageSets" / "Main" / "train.txt", "\n".join(names[:-1]) + "\n")
    put(root / "ImageSets" / "Main" / "test.txt", names[-1] + "\n")
    return found


def write_mole(root: Path, count: int = 4) -> list[Person]:
    """Two subsets with files of captions, and one with a text beside each picture."""
    found = people(count)
    captions: dict[str, dict[str, Any]] = {"face_new": {}, "hand_new": {}}
    for number, person in enumerate(found):
        subset = ("face_new", "finetune-data_23411", "hand_new")[number % 3]
        put(root / subset / f"{number}.jpg", jpeg(person.picture))
        if subset in captions:
            captions[subset][str(number)] = {"caption": person.caption, "train_resolution": [SIZE, SIZE]}
        else:
            put(root / subset / f"{number}.txt", person.caption)
    for subset, entries in captions.items():
        put(root / subset / "meta_cap.json", json.dumps(entries))
    return found


def write_wholebody(root: Path, count: int = 4) -> list[Person]:
    found = people(count)
    images, annotations, captions = [], [], []
    for number, person in enumerate(found):
        name = f"{number:012d}.jpg"
        put(root / "val2017" / name, jpeg(person.picture))
        images.append({"id": number, "file_name": name, "width": SIZE, "height": SIZE, "license": 1})
        captions.append({"id": number, "image_id": number, "caption": person.caption})
        parts: dict[str, Any] = {}
        for part, box in {"face": person.face, "lefthand": person.hands[0], "righthand": person.hands[1]}.items():
            parts |= {f"{part}_box": xywh(box), f"{part}_valid": True, f"{part}_kpts": [1.0, 2.0, 0.5] * 21}
        annotations.append(
            {
                "id": 100 + number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": xywh(person.body),
                "area": 100.0,
                "keypoints": [0] * 51,
                "num_keypoints": 0,
                "foot_kpts": [0.0] * 18,
                "foot_valid": False,
                **parts,
            }
        )
    categories = [{"id": 1, "name": "person", "supercategory": "person"}]
    labels = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    put(root / "annotations" / "coco_wholebody_val_v1.0.json", json.dumps(labels))
    put(root / "annotations" / "captions_val2017.json", json.dumps({"images": images, "annotations": captions}))
    return found


def xywh(box: list[float]) -> list[float]:
    x0, y0, x1, y1 = box
    return [x0, y0, x1 - x0, y1 - y0]


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def write_webdataset(root: Path, count: int = 4) -> list[Person]:
    """What img2dataset writes, with boxes in the JSON besides."""
    found = people(count)
    members: dict[str, bytes] = {}
    table = []
    for number, person in enumerate(found):
        key = f"{number:09d}"
        fields = {
            "url": f"https://example.org/{number}.jpg",
            "caption": person.caption,
            "key": key,
            "status": "success",
            "error_message": None,
            "width": SIZE,
            "height": SIZE,
            "original_width": 2 * SIZE,
            "original_height": 2 * SIZE,
            "exif": "{}",
            "sha256": "",
        }
        boxes = {"faces": [person.face], "hands": person.hands}
        members[f"{key}.jpg"] = jpeg(person.picture)
        members[f"{key}.json"] = json.dumps(fields | boxes).encode()
        members[f"{key}.txt"] = person.caption.encode()
        table.append(fields)
    write_tar(root / "00000.tar", members)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(table), root / "00000.parquet")
    put(root / "00000_stats.json", json.dumps({"count": count, "successes": count}))
    return found


FORMATS: Mapping[str, Callable[[Path, int], list[Person]]] = {
    "cosmicman": write_cosmicman,
    "bodyhands": write_bodyhands,
    "mole": write_mole,
    "wholebody": write_wholebody,
    "webdataset": write_webdataset,
}
