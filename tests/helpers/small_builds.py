"""Cheap builds in this process, and what they left."""

import hashlib

import pyarrow
import pyarrow.parquet

from fairhuman import config
from fairhuman.data.pipeline.run import Workers, build_dataset
from fairhuman.data.pipeline.settings import BuildRecipe

CHEAP = ["min_side=null", "detect=null", "caption.kind=text", "block_rows=4", "shard_rows=6"]


def settings(*overrides):
    return config.build(BuildRecipe, {}, [*CHEAP, *overrides])


def build(source, out, *overrides, **options):
    return build_dataset(source, out, settings(*overrides), Workers(0), **options)


def table(out):
    return pyarrow.concat_tables([pyarrow.parquet.read_table(path) for path in sorted((out / "data").iterdir())])


def rows(out):
    return table(out).to_pylist()


def rejected(out):
    return pyarrow.parquet.read_table(out / "rejected" / "00000.parquet").to_pylist()


def contents(out):
    """All bytes of the product, by name."""
    files = [*sorted((out / "data").iterdir()), out / "rejected" / "00000.parquet", out / "report.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
