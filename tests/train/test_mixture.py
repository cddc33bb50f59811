"""Several data sets, repeats, weights and aspect-ratio buckets, from the recipe to the steps."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fairhuman.data.pictures.arrow_copies import with_arrow_copies
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import Batch
from fairhuman.data.samples.sampler import BucketOrder
from fairhuman.errors import DataError, ModelError, RecipeError
from fairhuman.record import TableCell
from fairhuman.train.data import RunData, build_loader, load_data
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from helpers.figures import write_shapes
from helpers.runs import Crash

MakeRecipe = Callable[..., TrainRecipe]
WIDE, TALL, SQUARE = (96, 32), (32, 96), (48, 48)
BUCKETS = {"bucket_aspect": 3.0, "bucket_step": 16, "bucket_area": 0.75, "crop": "center", "keep_region": 0.0}


@pytest.fixture
def two(tmp_path: Path) -> list[dict[str, Any]]:
    """Two data sets whose pictures have the same names."""
    first = write_shapes(tmp_path / "first", [WIDE, TALL, SQUARE, SQUARE, WIDE, TALL, SQUARE, WIDE])
    return [{"path": str(first)}, {"path": str(write_shapes(tmp_path / "second", [TALL] * 5 + [WIDE] * 3))}]


def load(recipe: TrainRecipe) -> RunData:
    return load_data(recipe, LoadReport())


def drawn(data: RunData, positions: int) -> Counter[str]:
    """How many samples each source gave."""
    order = data.train.order
    return Counter(data.train.records[order.index(position)].key[0] for position in range(positions))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data must name at least one data set"),
        ([{"path": "a", "repeats": 0}], r"repeats: input should be greater than or equal to 1, found 0"),
        ([{"path": "a", "weight": 0}], r"weight: input should be greater than 0, found 0"),
        ([{"path": "a", "weight": float("nan")}], "weight: input should be a finite number"),
        ([{"path": "a", "repeats": 2, "weight": 1}], "repeats or weight, not both"),
        ([{"path": "a", "weight": 2}, {"path": "b"}], "either all sources must have a weight or none; b has none"),
        ([{"path": "a", "weigth": 2}], "unknown setting 'data.sources.0.weigth'"),
        ([{"repeats": 2}], "the setting 'data.sources.0.path' is missing"),
        ([{"path": "a", "regions": ["feet"]}], r"a has the region 'feet', regions\.names are face, hand"),
        ([{"path": "a", "regions": ["face"]}], "no source annotates the region 'hand'"),
        (7, "data.path: input is not a valid path"),
    ],
)
def test_contradictory_mixtures_are_refused(make_recipe: MakeRecipe, data: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(data=data)


def test_a_path_on_the_command_line_stays_a_path(make_recipe: MakeRecipe, two: list[dict[str, Any]]) -> None:
    recipe = make_recipe("run", "data=elsewhere/photos", data=two)
    assert recipe.data == Path("elsewhere/photos")
    assert recipe.model_dump(mode="json")["data"] == "elsewhere/photos"
    written = make_recipe("run", f"data=[{{path: {two[0]['path']}, weight: 0.5}}]")
    assert TrainRecipe.model_validate(written.model_dump(mode="json")) == written
    assert written.data_name == two[0]["path"]


def test_repeats_and_weights_of_sources(make_recipe: MakeRecipe, two: list[dict[str, Any]]) -> None:
    assert drawn(load(make_recipe(data=two)), 16) == {"0": 8, "1": 8}
    assert drawn(load(make_recipe(data=[two[0] | {"repeats": 3}, two[1]])), 32) == {"0": 24, "1": 8}
    weighted = drawn(load(make_recipe(data=[two[0] | {"weight": 9}, two[1] | {"weight": 1}])), 100)
    assert weighted["0"] == pytest.approx(90, abs=1)


def test_records_of_equal_names_are_distinguished(make_recipe: MakeRecipe, two: list[dict[str, Any]]) -> None:
    data = load(make_recipe(data=two, validation={"every": 1, "share": 0.25}))
    assert data.held_out is not None
    keys = [record.key for part in (data.train, data.held_out) for record in part.records]
    assert len(set(keys)) == len(keys) == 16
    assert len(data.held_out) == 4


def test_a_source_may_lack_regions(make_recipe: MakeRecipe, two: list[dict[str, Any]], tmp_path: Path) -> None:
    faces = {"path": str(write_shapes(tmp_path / "faces", [SQUARE] * 3, hands=None))}
    with pytest.raises(DataError, match="no record annotates the region 'hand'"):
        load(make_recipe(data=[two[0], faces]))
    data = load(make_recipe(data=[two[0], faces | {"regions": ["face"]}]))
    known = {sample.key[0]: sample.known_r.tolist() for sample in (data.train[i] for i in range(11))}
    assert known == {"0": [True, True], "1": [True, False]}


def test_a_completely_held_out_source_is_named(make_recipe: MakeRecipe, two: list[dict[str, Any]]) -> None:
    path = Path(two[1]["path"]) / "metadata.jsonl"
    rows = [json.loads(line) | {"split": "test"} for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(DataError, match="second: every record is held out"):
        load(make_recipe(data=two))
    with pytest.raises(DataError, match=r"held out \(split .*\), none is left .* on another split, such as train$"):
        load(make_recipe(data=two[1]["path"]))


def test_the_fingerprint_distinguishes_mixtures(make_recipe: MakeRecipe, two: list[dict[str, Any]]) -> None:
    plain = load(make_recipe(data=two[0]["path"]))
    keys = [[record.key for record in plain.train.records], []]
    assert plain.fingerprint == hashlib.sha256(json.dumps(keys).encode()).hexdigest()  # as earlier versions have it
    assert load(make_recipe(data=two[:1])).fingerprint == plain.fingerprint
    mixtures = [
        two,
        [two[0] | {"repeats": 2}, two[1]],
        [two[0] | {"weight": 2}, two[1] | {"weight": 1}],
        [two[0] | {"weight": 3}, two[1] | {"weight": 1}],
        [two[0], two[1] | {"regions": ["face"]}],
    ]
    assert len({load(make_recipe(data=data)).fingerprint for data in mixtures} | {plain.fingerprint}) == 6


def batches(recipe: TrainRecipe) -> list[Batch]:
    return list(build_loader(recipe, load(recipe), 0, 1, 0))


def test_each_batch_has_one_bucket_and_says_so_in_its_time_ids(
    make_recipe: MakeRecipe, two: list[dict[str, Any]]
) -> None:
    recipe = make_recipe(data=two, view=BUCKETS, steps=23, source={"workers": 1})
    order = load(recipe).train.order
    assert isinstance(order, BucketOrder)
    assert list(order.resolutions) == [(16, 48), (32, 32), (48, 16)]
    found: Counter[tuple[int, ...]] = Counter()
    for batch in batches(recipe):
        size = tuple(batch.pictures_bchw.shape[-2:])
        assert tuple(batch.masks_brhw.shape[-2:]) == size
        assert batch.time_ids_b6[:, 4:].tolist() == [list(size)] * 2
        shapes = {(height > width) - (height < width) for height, width in batch.time_ids_b6[:, :2].tolist()}
        assert shapes == {(size[0] > size[1]) - (size[0] < size[1])}
        found[size] += 1
    # 6 wide, 3 square and 7 tall records, 2 a batch, 3 epochs: 9, 4.5 and 10.5 batches, a half one waits.
    assert found == {(16, 48): 9, (32, 32): 4, (48, 16): 10}


def test_a_step_with_buckets_is_the_same_however_it_is_divided(
    make_recipe: MakeRecipe, two: list[dict[str, Any]]
) -> None:
    whole = batches(make_recipe(data=two, view=BUCKETS, batch_size=4))
    parts = batches(make_recipe(data=two, view=BUCKETS, batch_size=2, accumulate=2))
    assert [batch.keys for batch in whole] == [a.keys + b.keys for a, b in zip(parts[::2], parts[1::2], strict=True)]


@pytest.mark.slow
def test_a_mixture_in_buckets_resumes_identically(make_recipe: MakeRecipe, two: list[dict[str, Any]]) -> None:
    data = [two[0] | {"weight": 2}, two[1] | {"weight": 1}]
    values = {"data": data, "view": BUCKETS, "accumulate": 2, "cache": {"latents": True}}
    values["validation"] = {"every": 4, "share": 0.2}
    whole, broken = (make_recipe(name, steps=5, **values) for name in ("whole", "broken"))
    train(whole)
    with pytest.raises(RuntimeError, match="crash"):
        train(broken, [Crash(3)])
    assert train(broken).finished
    weights = [(r.out / "lora" / "pytorch_lora_weights.safetensors").read_bytes() for r in (whole, broken)]
    assert weights[0] == weights[1]
    changed = make_recipe("broken", steps=6, **values | {"data": [data[0], data[1] | {"weight": 2}]})
    with pytest.raises(DataError, match="records, or their mixture, differ from those of the run"):
        train(changed)


def test_buckets_that_do_not_fit_are_refused(make_recipe: MakeRecipe, two: list[dict[str, Any]]) -> None:
    with pytest.raises(RecipeError, match=r"resolution must be a multiple of view.bucket_step = 64, found \(32, 32\)"):
        make_recipe(view={"bucket_step": 64})
    recipe = make_recipe(data=two, view=BUCKETS | {"bucket_step": 8})
    with pytest.raises(ModelError, match=r"view\.bucket_step must be a multiple of 16 .*found \(\d+, \d+\)"):
        train(recipe)


def test_pictures_inside_tables_are_copied_unless_that_is_off(
    make_recipe: MakeRecipe, two: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairhuman.train.data.with_arrow_copies", partial(with_arrow_copies, small=0))
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path / "cache"))
    folder = Path(two[0]["path"])
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["image"] = {"bytes": (folder / row.pop("file_name")).read_bytes(), "path": None}
    table = tmp_path / "people.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    recipes = [make_recipe(data=str(table), source={"cache": cache}) for cache in (True, str(tmp_path / "own"), False)]
    shared, own, off = (load(recipe) for recipe in recipes)
    assert all(isinstance(record.image, TableCell) for record in off.train.records)
    assert list((tmp_path / "cache" / "arrow").rglob("*.arrow"))
    assert list((tmp_path / "own").rglob("*.arrow"))
    for position in range(4):
        a, b, c = (data.train[position].picture_chw for data in (shared, own, off))
        assert a.equal(b)
        assert a.equal(c)
