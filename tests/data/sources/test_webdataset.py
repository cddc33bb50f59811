"""The reader of WebDataset: members by key, places of pictures, and tars that are broken or hostile."""

import gzip
import io
import json
import tarfile
import tracemalloc

import pytest
from PIL import Image
from webdataset.tariterators import group_by_keys, tar_file_expander

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import read_bytes
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.rows import NO_UNICODE
from fairhuman.data.sources.webdataset import webdataset_rows
from fairhuman.errors import DataError
from fairhuman.record import Box, FileSpan
from helpers.formats import write_tar
from helpers.tiny_pictures import encoded, picture


def png(seed: int) -> bytes:
    return encoded(picture(40, 30, seed))


def read(path, regions=(), **settings):
    report = LoadReport()
    records = read_source(path, regions, SourceSettings(max_reject_share=1.0, **settings), report)
    return records, [(entry.file, entry.action, entry.reason) for entry in report.notes]


def save(path, *members: tuple[tarfile.TarInfo, bytes], form=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=form) as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_samples_are_those_of_the_webdataset_library(tmp_path):
    members = {
        "a.png": png(0), "a.txt": b"one", "deep/a.PNG": png(1), "deep/a.txt": b"two",
        "b.c.png": png(2), "b.txt": b"three", ".hidden.png": png(3), "plain": b"", "__meta__/x.png": png(4),
        "a.cls": b"1", "long" * 60 + "é.png": png(5),
    }  # fmt: skip
    write_tar(tmp_path / "s.tar", members)
    rows = list(webdataset_rows(tmp_path, LoadReport()))
    with (tmp_path / "s.tar").open("rb") as file:
        samples = list(group_by_keys(tar_file_expander([{"url": "s.tar", "stream": file}])))
    theirs = [(sample["__key__"], sample["png"]) for sample in samples if "png" in sample]
    assert [(row.values["key"].removeprefix("s/"), read_bytes(row.values["image"])) for row in rows] == theirs
    assert [key for key, _ in theirs] == ["a", "deep/a", "long" * 60 + "é"]


def test_a_picture_is_a_place_in_the_tar_and_captions_are_beside(tmp_path):
    fields = {"caption": "from JSON", "faces": [[1, 2, 11, 12]], "split": "val", "attributes": {"age": 4}}
    members = {"a.png": png(0), "a.json": json.dumps(fields).encode(), "b.jpg": encoded(picture(40, 30), "JPEG")}
    write_tar(tmp_path / "s.tar", {**members, "b.json": json.dumps(fields).encode(), "b.txt": b"\xef\xbb\xbf text \n"})
    (first, second), notes = read(tmp_path / "s.tar", ("face",))
    assert notes == []
    assert (first.caption, second.caption) == ("from JSON", "text")
    assert isinstance(first.image, FileSpan)
    assert read_bytes(first.image) == members["a.png"]
    assert (first.key, first.split, first.attributes, first.location) == ("s/a", "val", {"age": 4}, "s.tar/a")
    assert first.boxes["face"] == (Box(1, 2, 11, 12),)


def test_masks_and_conditions_are_members(tmp_path):
    mask, depth = encoded(Image.new("L", (40, 30), 255)), encoded(Image.new("I;16", (40, 30), 7))
    write_tar(tmp_path / "s.tar", {"a.png": png(0), "a.mask.face.png": mask, "a.depth.png": depth, "a.mask.png": mask})
    (record,), notes = read(tmp_path, ("face",))
    assert read_bytes(record.masks["face"]) == mask
    assert read_bytes(record.depth) == depth
    assert ("s.tar", "warned", "members of other kinds are ignored") in notes


def test_keys_of_several_shards_stay_apart(tmp_path):
    for number in range(3):
        write_tar(tmp_path / f"{number}.tar", {"0.png": png(number)})
    assert [record.key for record in read(tmp_path)[0]] == ["0/0", "1/0", "2/0"]


@pytest.mark.parametrize(
    ("members", "action", "reason"),
    [
        ({"b.txt": b"alone"}, "skipped", "sample has no picture"),
        ({"b.png": png(2), "b.jpg": png(3)}, "warned", "sample has several pictures, the first is used"),
        ({"b.png": png(2), "b.json": b"{"}, "dropped", "JSON of a sample can't be read"),
        ({"b.png": png(2), "b.json": b"[" * 100_000}, "dropped", "JSON of a sample can't be read"),
        ({"b.png": png(2), "b.json": b"[1]"}, "dropped", "JSON of a sample is not an object"),
        ({"b.png": png(2), "b.txt": b"caf\xe9"}, "dropped", "text of a sample is not UTF-8"),
        ({"b.png": png(2), "b.txt": b"x" * (2**24 + 1)}, "dropped", "text of a sample is too long"),
        ({"b.png": png(2), "b.json": b'{"attributes": "{]"}'}, "dropped", "attributes are not JSON"),
        ({"b.png": png(2), "b.json": b'{"attributes": [1]}'}, "dropped", "attributes are not a table of names"),
        ({"b.png": png(2), "b.json": rb'{"split": "\ud800"}'}, "converted", NO_UNICODE),
        ({"b.png": b""}, "skipped", "file is empty (0 bytes)"),
    ],
)  # fmt: skip
def test_odd_samples_are_noted(tmp_path, members, action, reason):
    write_tar(tmp_path / "s.tar", {"a.png": png(0), "a.txt": b"fine", **members, "c.png": png(4), "c.txt": b"fine"})
    records, notes = read(tmp_path)
    assert [record.key for record in records if record.key != "s/b"] == ["s/a", "s/c"]
    assert ("s.tar/b", action, reason) in notes


@pytest.mark.parametrize(
    ("attributes", "found"), [({"age": 4}, {"age": 4}), ('{"age": 4}', {"age": 4}), (None, {}), ("null", {})]
)
def test_where_a_picture_was_downloaded_is_an_attribute(tmp_path, attributes, found):
    fields = json.dumps({"url": "http://x", "attributes": attributes})
    write_tar(tmp_path / "s.tar", {"a.png": png(0), "a.json": fields.encode()})
    (record,), _ = read(tmp_path)
    assert record.attributes == {"url": "http://x", **found}


def test_json_cannot_point_out_of_the_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(9))
    outside = "../secret.png"
    fields = json.dumps({"image": outside, "depth": outside, "masks": {"face": outside}, "faces": []})
    write_tar(tmp_path / "set" / "s.tar", {"a.png": png(0), "a.json": fields.encode()})
    (record,), notes = read(tmp_path / "set", ("face",))
    assert read_bytes(record.image) == png(0)
    assert (record.depth, record.masks) == (None, {})
    assert ("s.tar/a", "dropped", "path leaves the folder of the data set") in notes


def test_links_repeats_and_devices_are_refused(tmp_path):
    link, device = tarfile.TarInfo("a.jpg"), tarfile.TarInfo("b.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    device.type = tarfile.CHRTYPE
    again = (tarfile.TarInfo("c.png"), png(1))
    save(tmp_path / "s.tar", (link, b""), (device, b""), (tarfile.TarInfo("c.png"), png(0)), again)
    (record,), notes = read(tmp_path)
    assert (record.key, read_bytes(record.image)) == ("s/c", png(0))
    refused = "member is a link or no plain file"
    assert [note for note in notes if note[1] == "dropped"] == [
        ("s.tar/a.jpg", "dropped", refused), ("s.tar/b.png", "dropped", refused),
        ("s.tar/c.png", "dropped", "a second member of one name and ending"),
    ]  # fmt: skip


def test_sparse_members_are_refused(tmp_path):
    member = tarfile.TarInfo("a.png")
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.png",
                          "GNU.sparse.realsize": "512"}  # fmt: skip
    save(
        tmp_path / "s.tar", (member, b"1\n0\n512\n".ljust(512, b"\0") + bytes(512)), (tarfile.TarInfo("b.png"), png(0))
    )
    records, notes = read(tmp_path)
    assert [record.key for record in records] == ["s/b"]
    assert ("s.tar/a.png", "dropped", "member is a link or no plain file") in notes


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_pictures_are_where_the_headers_of_every_kind_say(tmp_path, form):
    names = ["short.png", "folder/" * 12 + "long" * 20 + ".png"]
    save(tmp_path / "s.tar", *((tarfile.TarInfo(name), png(i)) for i, name in enumerate(names)), form=form)
    assert [read_bytes(record.image) for record in read(tmp_path)[0]] == [png(0), png(1)]


def test_complete_members_of_a_truncated_tar_are_read(tmp_path):
    """At whatever byte it is cut, the members before it are read and the cut is noted."""
    write_tar(tmp_path / "whole.tar", {f"{i}.png": png(i) for i in range(4)})
    with tarfile.open(tmp_path / "whole.tar") as tar:
        ends = [member.offset_data + member.size for member in tar]
    whole = (tmp_path / "whole.tar").read_bytes()
    for length in {*range(1024, ends[-1] + 512, 300), *ends, *(end - 1 for end in ends)}:
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        report = LoadReport()
        rows = list(webdataset_rows(tmp_path / "cut.tar", report))
        assert len(rows) == sum(end <= length for end in ends), length
        assert [entry.reason for entry in report.notes if "cut off" in entry.reason], length
    report = LoadReport()
    assert len(list(webdataset_rows(tmp_path / "whole.tar", report))) == 4
    assert report.notes == []


def test_a_damaged_header_ends_the_tar_with_a_note(tmp_path):
    write_tar(tmp_path / "s.tar", {f"{i}.png": png(0) for i in range(3)})
    with tarfile.open(tmp_path / "s.tar") as tar:
        second = tar.getmembers()[1].offset
    for damage in (b"\xff" * 512, b"x" * 100, _header_of_negative_size()):
        content = bytearray((tmp_path / "s.tar").read_bytes())
        content[second : second + len(damage)] = damage
        (tmp_path / "bad.tar").write_bytes(content)
        report = LoadReport()
        rows = list(webdataset_rows(tmp_path / "bad.tar", report))
        assert [row.values["key"] for row in rows] == ["bad/0"]
        assert [entry.reason for entry in report.notes] == ["tar is cut off or damaged: what follows is not read"]


def _header_of_negative_size() -> bytes:
    header = tarfile.TarInfo("1.png")
    header.size = -2048
    return header.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (gzip.compress(b"x" * 5000), "is compressed"),
        (b"", "not a readable tar file"),
        (b"hello" * 500, "not a readable tar file"),
    ],
    ids=["gzip", "empty", "text"],  # bytes as names would hold the second at which they were compressed
)
@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz", "s.tgz"])
def test_files_that_are_not_tars_are_rejected(tmp_path, content, reason, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: {reason}"):
        read(tmp_path / name)


def test_a_tar_is_never_in_memory(tmp_path):
    """Not its pictures, nor a header for each of them: 3,000 of 20 kB."""
    content = bytes(20_000)
    write_tar(tmp_path / "s.tar", {f"{i:05d}.png": content for i in range(3000)})
    rows = webdataset_rows(tmp_path / "s.tar", LoadReport())
    tracemalloc.start()
    assert sum(1 for _ in rows) == 3000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_long_header_is_not_read(tmp_path, kind):
    """A sparse tar of a few kilobytes can state headers of any size, which `tarfile` would read at once."""
    with (tmp_path / "a.tar").open("wb") as file:
        for name, of_kind, size in (("a.png", tarfile.REGTYPE, 20), ("b", kind, 200_000_000)):
            member = tarfile.TarInfo(name)
            member.type, member.size = of_kind, size
            file.write(member.tobuf(tarfile.USTAR_FORMAT))
            file.seek(-(-size // 512) * 512, 1)
        file.write(bytes(1024))
    report = LoadReport()
    tracemalloc.start()
    rows = list(webdataset_rows(tmp_path / "a.tar", report))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23
    assert [row.location for row in rows] == ["a.tar/a"]
    (note,) = report.notes
    assert note.value == "a header must have at most 1,048,576 bytes, found 200,000,000"
