"""Folders of other trainers: what is read, and what is named where something doesn't fit."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.look.check import check_dataset
from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, kohya, read_source, source_kind
from fairhuman.data.sources.folder import find_pictures
from fairhuman.errors import DataError
from fairhuman.record import IGNORE, SUBJECT, HumanRecord
from helpers.tiny_pictures import encoded, picture
from helpers.trainer_folders import COUNT, HEIGHT, TRAINERS, WIDTH, mask, photo, write_kohya_toml


def read(path: Path, **settings) -> tuple[list[HumanRecord], LoadReport]:
    report = LoadReport()
    return read_source(path, (), SourceSettings(**{"max_reject_share": 1.0, **settings}), report), report


def reasons(report: LoadReport, *actions: str) -> list[tuple[str, str]]:
    return [(note.place, note.reason) for note in report.notes if note.action in (actions or ("dropped", "skipped"))]


@pytest.fixture(params=TRAINERS)
def trainer(request, tmp_path) -> tuple[str, Path, int]:
    write, kind, repeats = TRAINERS[request.param]
    root = tmp_path / "mine"
    root.mkdir()
    return kind, write(root), repeats


def test_each_is_read_as_it_is(trainer):
    kind, path, repeats = trainer
    assert source_kind(path) == kind
    records, report = read(path)
    assert reasons(report) == []
    assert [record.repeats for record in records] == [repeats] * COUNT
    assert [(record.width, record.height) for record in records] == [(WIDTH, HEIGHT)] * COUNT
    captions = [record.caption for record in records]
    if kind == "kohya":  # from .txt, from .caption, from the folder's name
        assert captions == ["ohwx person, photo 0", "ohwx person, photo 1", "ohwx person"]
    else:
        trigger = "ohwx " if kind == "ai_toolkit" else ""
        assert captions == [f"{trigger}photo {number}" for number in range(COUNT)]
    for record in records:
        ignored = np.asarray(decode_mask(record.masks[IGNORE]))
        assert set(record.masks) == {IGNORE}
        assert not ignored[:, :10].any()
        assert (ignored[:, 10:] == 255).all()


def test_names_that_macos_wrote_are_paired_with_those_of_other_systems(trainer):
    """é as two characters in the names of photos, as one in those of captions and masks."""
    _, path, _ = trainer
    before = read(path)[0]
    root = path if path.is_dir() else path.parent
    for file in root.rglob("*.*"):
        is_mask = file.suffix == ".png" and re.search("mask|cond", str(file.relative_to(root)))
        if is_mask or file.suffix in (".txt", ".caption"):
            file.rename(file.with_name(f"\u00e9{file.name}"))
        elif file.suffix in (".jpg", ".png"):
            file.rename(file.with_name(f"e\u0301{file.name}"))
    records, report = read(path)
    assert reasons(report) == []
    assert [(one.caption, set(one.masks)) for one in records] == [(one.caption, set(one.masks)) for one in before]


def test_its_mask_is_a_subject_where_asked(trainer):
    _, path, _ = trainer
    report = LoadReport()
    for record in read_source(path, (SUBJECT,), SourceSettings(mask="subject"), report):
        assert set(record.masks) == {SUBJECT}
        assert (np.asarray(decode_mask(record.masks[SUBJECT]))[:, :10] == 255).all()
    with pytest.raises(DataError, match=r"no record has the region 'subject'.*source\.mask=subject"):
        read_source(path, (SUBJECT,), SourceSettings(), report)


def test_check_counts_photos(trainer):
    kind, path, repeats = trainer
    lines = check_dataset(path).lines()
    assert lines[0] == f"{path}: {COUNT} of {COUNT} records are usable, read as {kind}"
    more = f"; repeats {repeats}: {COUNT * repeats} with repeats" if repeats > 1 else ""
    assert lines[1] == f"{COUNT} photos with {COUNT} masks{more}"


def test_one_photo_with_one_mask(tmp_path):
    photo(tmp_path / "2_a" / "a.jpg", 0)
    mask(tmp_path / "masks" / "a.png")
    assert check_dataset(tmp_path).lines()[1] == "1 photo with 1 mask; repeats 2: 2 with repeats"


def test_a_folder_with_its_settings_is_read_like_the_settings(trainer):
    kind, path, _ = trainer
    if path.is_dir():
        return
    assert source_kind(path.parent) == kind
    if kind == "simpletuner":  # its file is in `config/`, its photos are beside that folder
        with pytest.raises(DataError, match=rf"outside of {path.parent}; .*data={path}$"):
            read(path.parent)
        return
    assert [record.caption for record in read(path.parent)[0]] == [record.caption for record in read(path)[0]]


def test_a_toml_of_kohya(tmp_path):
    path = write_kohya_toml(tmp_path)
    assert source_kind(path) == source_kind(tmp_path) == "kohya"
    records, report = read(path)
    assert reasons(report) == []
    masked, cut = records[:COUNT], records[COUNT:]
    assert [record.repeats for record in records] == [4] * COUNT + [1] * COUNT
    assert [record.caption for record in records] == ["photo 0", "photo 1", "photo 2", *["ohwx person"] * COUNT]
    assert [record.key for record in cut] == ["cut/cut0.png", "cut/cut1.png", "cut/cut2.png"]
    for record in [*masked, *cut]:
        ignored = np.asarray(decode_mask(record.masks[IGNORE]))
        assert not ignored[:, :10].any()
        assert (ignored[:, 10:] == 255).all()


@pytest.mark.parametrize(
    "name", ["a.toml", "a.yaml", "a.json", "a.csv", "a.parquet", "a.tar", "a.safetensors", "a.jpg"]
)
def test_a_folder_may_be_called_like_a_file(tmp_path, name):
    photo(tmp_path / name / "a.jpg", 0, "a")
    (tmp_path / name / "more.toml").mkdir()
    (tmp_path / name / "more.yaml").mkdir()
    assert source_kind(tmp_path / name) == "folder"
    assert [record.key for record in read(tmp_path / name)[0]] == ["a.jpg"]


@pytest.mark.parametrize("name", ["2024_holiday", "007_bond", "1000_nights", "ten_person", "10"])
def test_other_numbers_are_no_repeats(tmp_path, name):
    photo(tmp_path / name / "a.jpg", 0, "a")
    assert source_kind(tmp_path) == "folder"


def test_a_folder_of_repeats_itself(tmp_path, monkeypatch):
    photo(tmp_path / "5_cat" / "a.jpg", 0)
    photo(tmp_path / "5_cat" / "more" / "b.jpg", 1)
    monkeypatch.chdir(tmp_path / "5_cat")
    for path in (tmp_path / "5_cat", Path()):
        assert source_kind(path) == "kohya"
        records, report = read(path)
        assert [(record.repeats, record.caption) for record in records] == [(5, "cat")] * 2
        assert reasons(report, "warned") == []
    photo(tmp_path / "extra" / "c.jpg", 2, "c")
    records, report = read(tmp_path)
    assert [record.repeats for record in records] == [5, 5, 1]
    assert ("extra", "folder has no repeats in its name: read once an epoch") in reasons(report, "warned")


def test_masks_of_onetrainer_in_a_folder_of_repeats(tmp_path):
    photo(tmp_path / "1_ohwx" / "a.jpg", 0, "a")
    mask(tmp_path / "1_ohwx" / "a-masklabel.png")
    [record], report = read(tmp_path)
    assert (record.key, record.repeats, set(record.masks)) == ("1_ohwx/a.jpg", 1, {IGNORE})
    assert reasons(report, "warned", "dropped") == []


def test_what_kohyas_settings_put_around_captions(tmp_path):
    path = write_kohya_toml(tmp_path)
    text = path.read_text(encoding="utf-8")
    around = 'caption_prefix = "ohwx"\ncaption_suffix = "outside"\nenable_wildcard = true\n'
    path.write_text(text.replace("[general]\n", f"[general]\n{around}"), encoding="utf-8")
    records, report = read(path)
    assert [record.caption for record in records[2:4]] == ["ohwx photo 2 outside", "ohwx ohwx person outside"]
    assert ("dataset.toml", "settings of captions are not read") in reasons(report, "warned")


def test_captions_of_diffusion_pipe(tmp_path):
    """What stands above all directories, and a file of captions before those beside the photos."""
    for number, text in enumerate(["one", "two"]):
        photo(tmp_path / "photos" / f"{number}.jpg", number, text)
    path = tmp_path / "dataset.toml"
    path.write_text('num_repeats = 5\ncaption_prefix = "ohwx, "\n[[directory]]\npath = "photos"', encoding="utf-8")
    assert [(one.caption, one.repeats) for one in read(path)[0]] == [("ohwx, one", 5), ("ohwx, two", 5)]
    listed = tmp_path / "photos" / "captions.json"
    listed.write_text(json.dumps({"0.jpg": ["first", "second"], "1.jpg": []}), encoding="utf-8")
    records, report = read(path)
    assert [one.caption for one in records] == ["ohwx, first", "ohwx, two"]
    assert reasons(report, "warned") == [("0.jpg", "only the first of several captions is used")]
    for content, message in (([], "must be a table"), ({"0.jpg": 5}, "captions of 0.jpg must be a list of texts")):
        listed.write_text(json.dumps(content), encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read(path)


def test_maps_that_ai_toolkit_writes_are_no_photos(tmp_path):
    for name in ("a.jpg", "_controls/a.depth.jpg", ".hidden/b.jpg", "more/c.jpg"):
        photo(tmp_path / "photos" / name, 0, "a [trigger]")
    process = {"datasets": [{"folder_path": "photos"}], "trigger_word": "ohwx"}
    path = tmp_path / "job.yaml"
    path.write_text(json.dumps({"config": {"process": [process]}}), encoding="utf-8")
    assert [(one.key, one.caption) for one in read(path)[0]] == [
        ("photos/a.jpg", "a ohwx"),
        ("photos/more/c.jpg", "a ohwx"),
    ]


def test_what_else_lies_in_the_folder_wins_where_it_did(tmp_path):
    photo(tmp_path / "10_a" / "a.jpg", 0, "a")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "10_a/a.jpg", "caption": "b"}), encoding="utf-8")
    assert source_kind(tmp_path) == "imagefolder"
    (tmp_path / "metadata.jsonl").rename(tmp_path / "meta_cap.json")
    assert source_kind(tmp_path) == "mole"
    records, _ = read(tmp_path, format="folder")
    assert [record.repeats for record in records] == [1]


def test_masks_without_a_photo_and_photos_without_a_mask_are_named(tmp_path):
    write, _, _ = TRAINERS["onetrainer"]
    write(tmp_path)
    (tmp_path / "img 1.jpg").unlink()
    (tmp_path / "img 2-masklabel.png").unlink()
    mask(tmp_path / "img 0-masklabel1.png")
    mask(tmp_path / "img 0-condlabel.png")
    records, report = read(tmp_path)
    assert [record.key for record in records] == ["img 0.jpg", "img 2.jpg"]
    assert reasons(report) == [
        ("img 0-condlabel.png", "condition of OneTrainer is not read"),
        ("img 0-masklabel1.png", "mask is a second one of its photo"),
        ("img 1-masklabel.png", "mask matches no photo"),
    ]
    assert ("img 2.jpg", "photo has no mask, though others have") in reasons(report, "warned")
    assert not check_dataset(tmp_path).good


def test_masks_in_a_folder(tmp_path):
    """Photos and masks in a folder each, as for ai-toolkit; or masks among the photos, as for diffusion-pipe."""
    for number in range(2):
        photo(tmp_path / "images" / f"{number}.jpg", number, str(number))
        mask(tmp_path / "masks" / f"{number}.webp")
    mask(tmp_path / "masks" / "other.png")
    assert source_kind(tmp_path) == "ai_toolkit"
    records, report = read(tmp_path)
    assert [(record.key, set(record.masks)) for record in records] == [
        ("images/0.jpg", {IGNORE}),
        ("images/1.jpg", {IGNORE}),
    ]
    assert reasons(report) == [("masks/other.png", "mask matches no photo")]
    shutil.move(tmp_path / "masks", tmp_path / "images" / "masks")
    assert source_kind(tmp_path / "images") == "diffusion_pipe"
    assert [set(record.masks) for record in read(tmp_path / "images")[0]] == [{IGNORE}] * 2


def test_a_folder_called_masks_may_hold_photos(tmp_path):
    photo(tmp_path / "masks" / "venice.jpg", 0, "a carnival mask")
    photo(tmp_path / "people" / "anna.jpg", 1, "anna")
    assert source_kind(tmp_path) == "folder"
    assert len(read(tmp_path)[0]) == 2


def test_names_that_several_photos_have(tmp_path):
    for folder in ("5_a", "7_b"):
        photo(tmp_path / folder / "x.jpg", len(folder), "x")
    photo(tmp_path / "5_a" / "y.jpg", 3, "y")
    mask(tmp_path / "masks" / "x.png")
    mask(tmp_path / "masks" / "y.png")
    records, report = read(tmp_path)
    assert [record.key for record in records if IGNORE in record.masks] == ["5_a/y.jpg"]
    assert reasons(report) == [("masks/x.png", "mask is that of several photos")]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ai_toolkit", "photo_masks", "lost", "train.yaml: mask_path is lost, but there is no such folder"),
        ("diffusion_pipe", "num_repeats = 3", "num_repeats = 0", "num_repeats must be a whole number of at least 1"),
        ("simpletuner", '"mask-data", "type"', '"m", "type"', "names 'mask-data', but no data set has this id"),
        ("simpletuner", "datasets/subject", "lost", "instance_data_dir is lost, but there is no such folder"),
        ("diffusion_pipe", "[[directory]]", "[[directory]", "not a TOML file"),
        ("ai_toolkit", "job:", "job: [", "not a YAML file"),
    ],
)
def test_wrong_settings_are_named(tmp_path, name, old, new, message):
    path = TRAINERS[name][0](tmp_path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", f"datasets = {'9' * 5000}", "not a TOML file"),
        ("a.toml", f"datasets = {'[' * 5000}", "not a TOML file"),
        ("a.toml", "datasets = [{subsets = 5}]", "subsets must be a list of mappings, found 5"),
        ("a.toml", "datasets = [{subsets = [1]}]", "subsets must be a list of mappings, found 1"),
        ("a.toml", "general = 5\ndatasets = [{}]", r"general must be a table, \[general\], not 5"),
        (
            "a.toml",
            'datasets = [{subsets = [{image_dir = "i", caption_extension = 5}]}]',
            "caption_extension must be a",
        ),
        ("a.toml", 'datasets = [{subsets = [{image_dir = "i", caption_extension = "."}]}]', r"such as \.txt, not '\.'"),
        ("a.toml", 'datasets = [{subsets = [{image_dir = "i", caption_extension = "/../x"}]}]', "not '/../x'"),
        ("a.toml", 'datasets = [{subsets = [{image_dir = "i", class_tokens = [1]}]}]', "class_tokens must be a text"),
        (
            "a.toml",
            'datasets = [{subsets = [{image_dir = "~nosuchuser/i"}]}]',
            "image_dir must be the path of a folder",
        ),
        (
            "a.toml",
            f'datasets = [{{subsets = [{{image_dir = "{"x" * 300}"}}]}}]',
            "path of a folder, not 'x.*name too long",
        ),
        ("a.toml", f'datasets = [{{subsets = [{{image_dir = "{"x/" * 9999}"}}]}}]', "path of a folder, not 'x"),
        ("a.yaml", "config: {process: [{datasets: [5]}]}", "datasets must be a list of mappings, found 5"),
        pytest.param(
            "a.yaml",
            "#" * (2**20 + 1),
            "a.yaml: not a YAML file .must have at most 1048576 characters",
            id="large YAML",
        ),
        (
            "a.yaml",
            "config: {process: [{datasets: [{folder_path: i, caption_ext: [5]}]}]}",
            "caption_ext must be a text",
        ),
        (
            "a.yaml",
            "config: {process: [{datasets: [{folder_path: i, default_caption: 5}]}]}",
            "default_caption must be a",
        ),
        ("a.json", '[{"instance_data_dir": "i", "conditioning_data": 5}]', "conditioning_data must be a list of texts"),
        ("a.json", '[{"instance_data_dir": "i", "conditioning_data": [{}]}]', "list of texts, found {}"),
        ("a.json", '[{"instance_data_dir": "i", "id": [], "conditioning_data": "i"}]', "no data set has this id"),
    ],
)
def test_odd_values_are_one_line(tmp_path, name, content, message):
    photo(tmp_path / "i" / "a.jpg", 0)
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message) as found:
        read(path)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 500


OUTSIDE = {
    "a.toml": "datasets = [{{subsets = [{{image_dir = '{0}'}}]}}]",
    "b.toml": "[[directory]]\npath = 'in'\nmask_path = '{0}'",
    "a.yaml": "config: {{process: [{{datasets: [{{folder_path: '{0}'}}]}}]}}",
    "multidatabackend.json": '[{{"instance_data_dir": "{0}"}}]',
}


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("way", ["absolute", "dots", "link"])
def test_settings_found_in_a_folder_stay_in_it(tmp_path, name, way):
    mine, given = tmp_path / "mine", tmp_path / "given"
    photo(mine / "a.jpg", 0)
    photo(given / "in" / "a.jpg", 1)
    (given / "link").symlink_to(mine)
    named = {"absolute": str(mine), "dots": "in/../../mine", "link": "link"}[way]
    (given / name).write_text(OUTSIDE[name].format(named), encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name}: names .*, which is outside of {given}; .*data={given / name}$"):
        read(given)
    if way != "link":
        assert len(read(given / name)[0]) == 1


@pytest.mark.parametrize("name", ["10_ohwx person", "people"])
def test_masks_at_any_depth(tmp_path, name):
    """Beside the photos of a folder in the one that is given, which other trainers read folder by folder."""
    for number in range(2):
        photo(tmp_path / "set" / name / f"{number}.jpg", number, "a")
        mask(tmp_path / "set" / name / "masks" / f"{number}.png")
        photo(tmp_path / "set" / "other" / f"{number}.jpg", number + 2, "b")
    mask(tmp_path / "set" / name / "masks" / "lost.png")
    assert source_kind(tmp_path / "set") == ("folder" if name == "people" else "kohya")
    records, report = read(tmp_path / "set")
    assert {record.key: set(record.masks) for record in records} == {
        **{f"{name}/{number}.jpg": {IGNORE} for number in range(2)},
        **{f"other/{number}.jpg": set() for number in range(2)},
    }
    assert reasons(report) == [(f"{name}/masks/lost.png", "mask matches no photo")]


def test_of_the_folder_of_kohyas_gui_its_photos_are_read(tmp_path):
    for number in range(2):
        photo(tmp_path / "img" / "10_a" / f"{number}.jpg", number, "a")
        mask(tmp_path / "img" / "masks" / "10_a" / f"{number}.png")
    photo(tmp_path / "reg" / "1_person" / "r.jpg", 5, "a person")
    photo(tmp_path / "model" / "sample" / "e000001.png", 6)
    assert source_kind(tmp_path) == "kohya"
    records, report = read(tmp_path)
    assert [(record.key, record.repeats, set(record.masks)) for record in records] == [
        *((f"img/10_a/{number}.jpg", 10, {IGNORE}) for number in range(2)),
        ("reg/1_person/r.jpg", 20, set()),
    ]
    assert (tmp_path.name, "pictures outside img and reg are not read") in reasons(report, "warned")


@pytest.mark.parametrize(("count", "own", "repeats"), [(2, 2, [4, 3]), (9, 1, [1] * 7), (4, 2, [2, 2, 2, 2])])
def test_regularisation_pictures_are_as_many_as_photos(tmp_path, count, own, repeats):
    """As in sd-scripts: 7 photos an epoch; the last picture that begins below that counts whole."""
    photo(tmp_path / "img" / "7_a" / "a.jpg", 0, "a")
    for number in range(count):
        photo(tmp_path / "reg" / f"{own}_person" / f"{number}.jpg", number, "a person")
    subsets = [{"image_dir": "img/7_a", "num_repeats": 7}]
    subsets = [{"image_dir": f"reg/{own}_person", "num_repeats": own, "is_reg": True}, *subsets]
    tables = "\n".join(
        "[[datasets.subsets]]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in one.items()) for one in subsets
    )
    (tmp_path / "own.toml").write_text(f"[[datasets]]\n{tables}", encoding="utf-8")
    for path in (tmp_path / "own.toml", tmp_path):
        records, report = read(path)
        assert [record.repeats for record in records] == [7, *repeats]
        more = "more regularisation pictures than photos: the others are not read"
        assert (more in str(report.notes)) == (len(repeats) < count)
        (tmp_path / "own.toml").unlink(missing_ok=True)


def test_links_of_photos_and_masks_stay_in_their_folder(tmp_path):
    given, other, mine = tmp_path / "given", tmp_path / "other", tmp_path / "mine"
    for name in ("a", "b", "c"):
        photo(other / "in" / f"{name}.jpg", ord(name))
        mask(other / "masks" / f"{name}.png")
    photo(mine / "b.jpg", 5)
    mask(mine / "c.png")
    for file, target in ((other / "in" / "b.jpg", mine / "b.jpg"), (other / "masks" / "c.png", mine / "c.png")):
        file.unlink()
        file.symlink_to(target)
    given.mkdir()
    (given / "d.toml").write_text(f"[[directory]]\npath = '{other / 'in'}'\nmask_path = '{other / 'masks'}'", "utf-8")
    records, report = read(given / "d.toml")
    assert [(Path(record.key).name, IGNORE in record.masks) for record in records] == [
        ("a.jpg", True),
        ("c.jpg", False),
    ]
    leaves = "path leaves the folder of the data set"
    assert [(Path(place).name, why) for place, why in reasons(report)] == [("b.jpg", leaves), ("c.jpg", leaves)]


def test_the_trigger_word_of_ai_toolkit(tmp_path):
    """Those of the process and of a data set; captions without it, with it, with its place, and none."""
    texts = ["a man", "ohwx, a man", "[trigger] as [name]", None]
    for number, text in enumerate(texts):
        photo(tmp_path / "photos" / f"{number}.jpg", number, text)

    def captions(trigger: object, **dataset: object) -> list[str]:
        process = {"trigger_word": trigger, "datasets": [{"folder_path": "photos", **dataset}]}
        (tmp_path / "job.yaml").write_text(json.dumps({"config": {"process": [process]}}), encoding="utf-8")
        return [record.caption for record in read(tmp_path / "job.yaml")[0]]

    assert captions("ohwx") == ["ohwx a man", "ohwx, a man", "ohwx as ohwx", "ohwx"]
    assert captions("ohwx", trigger_word="sks")[:3] == ["sks a man", "sks ohwx, a man", "sks as sks"]
    assert captions("ohwx", is_reg=True) == [*texts[:2], "ohwx as ohwx", ""]
    assert captions(None) == [*texts[:2], "as", ""]
    with pytest.raises(DataError, match="trigger_word must be a text, not 5"):
        captions(5)


def test_captions_of_simpletuner(tmp_path):
    path = TRAINERS["simpletuner"][0](tmp_path)
    entries = json.loads(path.read_text(encoding="utf-8"))

    def captions(**changes: object) -> list[str]:
        path.write_text(json.dumps([entries[0] | changes, *entries[1:]]), encoding="utf-8")
        return [record.caption for record in read(path)[0]]

    assert captions(caption_strategy="instanceprompt", instance_prompt="ohwx") == ["ohwx"] * 3
    assert captions(prepend_instance_prompt=True, instance_prompt="ohwx") == [
        "ohwx photo 0",
        "ohwx photo 1",
        "ohwx photo 2",
    ]
    assert captions(caption_strategy="filename") == ["0", "1", "2"]
    only = {"only_instance_prompt": True, "instance_prompt": ["x y", "z"]}
    assert captions(caption_strategy="filename", **only) == ["x y"] * 3
    assert ("multidatabackend.json", "only the first of several captions is used") in reasons(read(path)[1], "warned")
    first = next(tmp_path.rglob("0.txt"))
    first.write_text("one\ntwo", encoding="utf-8")
    assert captions()[0] == "one"
    assert captions(disable_multiline_split=True)[0] == "one\ntwo"
    first.write_text("photo 0", encoding="utf-8")
    assert captions(repeats=0)[0] == "photo 0"
    assert {record.repeats for record in read(path)[0]} == {1}


def test_opacity_is_a_mask_where_asked(tmp_path):
    cut = picture(WIDTH, HEIGHT).convert("RGBA")
    cut.putalpha(Image.fromarray(np.tile(np.uint8([255] * 10 + [0] * 30), (HEIGHT, 1))))
    (tmp_path / "cut.png").write_bytes(encoded(cut))
    (tmp_path / "whole.png").write_bytes(encoded(picture(WIDTH, HEIGHT, 1)))
    records, report = read(tmp_path)
    assert [record.masks for record in records] == [{}, {}]
    assert reasons(report, "converted") == [("cut.png", "transparent pixels laid on the background")]
    assert "      source.alpha=mask keeps the opacity as a mask" in check_dataset(tmp_path).lines()
    records, report = read(tmp_path, alpha="mask")
    assert [set(record.masks) for record in records] == [{IGNORE}, set()]
    assert reasons(report, "converted") == [("cut.png", "opacity kept as the picture's mask")]
    assert np.asarray(decode_mask(records[0].masks[IGNORE])).mean() == 255 * 0.75
    subject = read(tmp_path, alpha="mask", mask="subject")[0][0]
    assert np.asarray(decode_mask(subject.masks[SUBJECT])).mean() == 255 * 0.25


def test_unused_columns_are_named(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(picture(WIDTH, HEIGHT)))
    row = {"file_name": "a.png", "caption": "a", "shoes": [[1, 2, 9, 9]], "shoes_scores": [0.5], "licence": "CC0"}
    row |= {"ignore": [[0, 0, 8, 8]], "faces": None, "empty": None}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    lines = check_dataset(tmp_path).lines()
    ignored = "ignore: part of 1 of 1 picture by boxes; these parts count for no objective, the rest does"
    share = "ignore: 3 % of the area counts for no objective"
    assert lines[1:] == [share, ignored, "columns 'shoes' and 'licence' are not used"]
    assert check_dataset(tmp_path).good
    assert "column 'shoes' is not used" not in check_dataset(tmp_path, regions=("shoes",)).lines()
    report = LoadReport()
    (record,) = read_source(tmp_path, ("shoes",), SourceSettings(), report)
    assert report.unused == ["licence"]
    assert record.boxes[IGNORE] is not None


@pytest.mark.parametrize(("value", "repeats"), [(3, 3), ("4", 4), (0, 1), (-1, 1), (1.5, 1), (True, 1), ("many", 1)])
def test_repeats_of_a_record(tmp_path, value, repeats):
    (tmp_path / "a.png").write_bytes(encoded(picture(WIDTH, HEIGHT)))
    row = {"file_name": "a.png", "caption": "a", "repeats": value}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (record,), report = read(tmp_path)
    assert record.repeats == repeats
    wrong = [note.value for note in report.notes if note.reason == "repeats is not a whole number of at least 1"]
    assert wrong == ([] if repeats > 1 else [str(value) if isinstance(value, str) else repr(value)])


def test_repeats_take_no_memory_without_bounds(tmp_path):
    for name, repeats in (("a", 10_000), ("b", 10_001), ("c", 10**18)):
        photo(tmp_path / name / f"{name}.jpg", ord(name))
        (tmp_path / f"{name}.toml").write_text(f"[[directory]]\npath = '{name}'\nnum_repeats = {repeats}")
    found = {name: read(tmp_path / f"{name}.toml") for name in "abc"}
    assert [records[0].repeats for records, _ in found.values()] == [10_000, 1, 1]
    assert reasons(found["c"][1]) == [("c/c.jpg", "repeats is more than 10000")]


@pytest.mark.parametrize(("size", "used"), [((2 * WIDTH, 2 * HEIGHT), True), ((WIDTH, WIDTH), False)])
def test_masks_of_another_size(tmp_path, size, used):
    photo(tmp_path / "a.jpg", 0, "a")
    half = np.zeros(size[::-1], np.uint8)
    half[:, : size[0] // 2] = 255
    Image.fromarray(half).save(tmp_path / "a-masklabel.png")
    (record,), report = read(tmp_path)
    if used:
        assert reasons(report, "converted") == [("a.jpg", "mask resized to its picture")]
        assert np.asarray(decode_mask(record.masks[IGNORE])).mean() == 255 / 2
        assert check_dataset(tmp_path).photos.masks == 1
    else:
        assert record.masks == {}
        assert reasons(report) == [("a.jpg", "mask has not the size of its picture")]


def test_relative_paths_find_masks(tmp_path, monkeypatch):
    """The folder as the GUI of kohya has it, named from where one stands."""
    for number in range(2):
        photo(tmp_path / "mine" / "img" / "3_cat" / f"{number}.jpg", number)
        mask(tmp_path / "mine" / "mask" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    assert source_kind(Path("mine")) == "kohya"
    records, report = read(Path("mine"))
    assert reasons(report, "dropped", "skipped", "warned") == []
    assert [(record.repeats, record.caption, set(record.masks)) for record in records] == [(3, "cat", {IGNORE})] * 2
    records, report = read(Path("mine/img"))
    assert [record.masks for record in records] == [{}, {}]
    assert ("img", "masks beside the folder are not read: give the folder above") in reasons(report, "warned")


def test_masks_beside_a_plain_folder_are_named(tmp_path):
    """As ai-toolkit has them; masks of other photos aren't meant."""
    for number in range(2):
        photo(tmp_path / "images" / f"{number}.jpg", number, "a")
        mask(tmp_path / "masks" / f"{number}.png")
    assert source_kind(tmp_path / "images") == "folder"
    _, report = read(tmp_path / "images")
    told = ("images", "masks beside the folder are not read: give the folder above")
    assert told in reasons(report, "warned")
    for number in range(2):
        (tmp_path / "masks" / f"{number}.png").rename(tmp_path / "masks" / f"other {number}.png")
    assert reasons(read(tmp_path / "images")[1], "warned") == []


def test_notes_of_a_check_are_those_of_a_run(tmp_path):
    """Of captions in folders with and without a number, and of a setting of masks that there are none of."""
    photo(tmp_path / "10_cat" / "a.jpg", 0)
    photo(tmp_path / "extra" / "b.jpg", 1)
    settings = SourceSettings(max_reject_share=1.0, mask="subject")
    for path in (tmp_path, tmp_path / "extra"):
        report = LoadReport()
        read_source(path, (), settings, report)
        checked = check_dataset(path, settings).report
        assert sorted(map(str, checked.notes)) == sorted(map(str, report.notes))
        found = {reason for _, reason in reasons(report, "warned")}
        assert "source.mask has no effect, no picture has a mask" in found
        assert ("caption is empty" in found) == (path == tmp_path)
        assert ("no record has a caption" in found) == (path != tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a." * 3000 + "a = 1\n", "line 1: must have at most 100 dots"), ("a = 1\n" * 50_000, "at most 262144 bytes")],
)
def test_settings_that_would_take_all_memory_are_refused_before_they_are_parsed(tmp_path, content, message):
    (tmp_path / "x.toml").write_text(f"{content}[[datasets]]\n")
    with pytest.raises(DataError, match=message):
        kohya.is_kohya(tmp_path / "x.toml")
    assert not kohya.is_kohya(tmp_path)


def test_links_out_of_the_data_set_are_not_walked(tmp_path, monkeypatch):
    given, other = tmp_path / "given", tmp_path / "other"
    photo(given / "photos" / "a.jpg", 1)
    mask(other / "a.png")
    monkeypatch.setattr(
        "fairhuman.data.sources.photo_folders.find_pictures",
        lambda root, report: find_pictures(root, report) if root.resolve() != other else pytest.fail("was walked"),
    )
    (given / "masks").symlink_to(other)
    (given / "photos" / "masks").symlink_to(other)
    (given / "photos" / "10_x").symlink_to(other)
    assert source_kind(given / "photos") == "folder"
    records, report = read(given / "photos")
    assert [record.masks for record in records] == [{}]
    assert reasons(report) == [("masks", "path leaves the folder of the data set")]


def test_a_huge_json_of_simpletuner_is_not_read(tmp_path):
    with (tmp_path / "multidatabackend.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match="must have at most 16,777,216 bytes, found 1,099,511,627,776"):
        read(tmp_path)


def test_links_that_point_at_themselves_are_named(tmp_path):
    folder = tmp_path / "lp" / "10_cat"
    (folder / "masks").mkdir(parents=True)
    for name in ("a.png", "b.png", "masks/a.png"):
        (folder / name).write_bytes(encoded(picture(40, 30, 1)))
    for name in ("loop.png", "masks/b.png"):
        (folder / name).symlink_to(folder / name)
    for place in (folder.parent, folder):
        records, report = read(place)
        assert {Path(record.key).name for record in records} == {"a.png", "b.png"}
        assert any("loop.png" in f"{note.place} {note.value}" for note in report.skipped())
