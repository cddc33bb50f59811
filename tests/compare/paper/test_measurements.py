"""Numbers of a table from an evaluation's files: pooled within a seed, averaged over seeds, paired with a method."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from fairhuman.compare.paper.measurements import read_measurements
from fairhuman.errors import DataError
from fairhuman.stats.bootstrap import change_over_seeds, ratio_over_seeds

METRIC, WHOLE = "strict hand confidence", "FID"


def write_evaluation(folder: Path, prompts: int = 40) -> dict[str, float]:
    """Two methods of two seeds and a base; MPD is better by 0.1 in each picture. Returns the pooled means."""
    generator = np.random.default_rng(0)
    rows, means = [], {}
    hardness, expected = generator.uniform(0.3, 0.7, prompts), generator.integers(0, 3, prompts)
    for method, shift in (("base", -0.2), ("LS", 0.0), ("MPD", 0.1)):
        found = []
        for seed in (1, 2) if method != "base" else (None,):
            tops = (hardness + shift + 0.02 * (seed or 0)) * expected
            found.append(tops.sum() / expected.sum())
            for number in range(prompts):
                name = f"{number:05d}-00.png"
                key = name if seed is None else f"seed-{seed}/{name}"
                row = {"method": method, "key": key, "prompt": f"prompt {number}", METRIC: float(tops[number])}
                rows.append({**row, f"{METRIC}: of": float(expected[number])})
        means[method] = float(np.mean(found))
    rows.append({**rows[-1], "key": "seed-3/00000-00.png", METRIC: 99.0})  # a seed that isn't whole
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "per_image.parquet")
    plain = {"value": 40.0, "low": 39.0, "high": 41.0, "n": 80}
    metrics = [
        {"name": name, "method": method, "better": "higher", **plain} for method in means for name in (METRIC, WHOLE)
    ]
    plain["standard_error"] = 0.5
    contrasts = [
        {"name": name, "method": method, "against": "LS", **plain, "p": 0.01, "p_holm": 0.04}
        for method in ("base", "MPD")
        for name in (METRIC, WHOLE)
    ]
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics, "differences": contrasts}))
    return means


def test_seeds_and_prompts_are_crossed_and_sets_keep_their_interval(tmp_path: Path) -> None:
    means = write_evaluation(tmp_path)
    found = {
        (one.metric, one.method): one
        for one in read_measurements(tmp_path, "LS", {"base": (1,), "LS": (1, 2), "MPD": (1, 2)})
    }
    for method, mean in means.items():
        assert found[METRIC, method].value.value == pytest.approx(mean)
    mpd = found[METRIC, "MPD"]
    assert mpd.over_seeds
    assert mpd.difference is not None
    assert mpd.difference.value == pytest.approx(0.1)
    assert mpd.difference.high - mpd.difference.low < 1e-9, "paired: the same in every picture"
    assert mpd.value.high - mpd.value.low > 0.05
    assert mpd.p == 0.04
    assert found[METRIC, "LS"].difference is None
    base = found[METRIC, "base"]
    assert not base.over_seeds
    assert base.difference is not None
    assert base.difference.value == pytest.approx(-0.22), "to the first seed, which it is paired with"
    whole = found[WHOLE, "MPD"]
    assert (whole.value.low, whole.value.high, whole.over_seeds) == (39.0, 41.0, False)
    assert whole.difference is not None
    assert whole.difference.standard_error == 0.5
    assert np.isnan(whole.value.standard_error), "a file of before has none"


def test_a_ratio_over_seeds_is_the_change_against_one_and_takes_samples_without_a_denominator() -> None:
    generator = np.random.default_rng(1)
    tops, ones = generator.uniform(0.5, 1.5, (3, 50)), np.ones((3, 50))
    same, other = ratio_over_seeds((tops, ones)), change_over_seeds((ones, ones), (tops, ones))
    assert same.value == pytest.approx(other.value + 1)
    assert (same.low, same.high) == pytest.approx((other.low + 1, other.high + 1))
    padded = [np.concatenate([column, np.zeros((3, 10))], axis=1) for column in (tops, ones)]
    found = ratio_over_seeds((padded[0], padded[1]))
    assert found.value == pytest.approx(same.value)
    assert found.high - found.low == pytest.approx(same.high - same.low, rel=0.3)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b"[]"),
        ("metrics.json", b'{"metrics": [{}], "differences": []}'),
        ("metrics.json", b'{"metrics": [], "differences": 5}'),
        ("per_image.parquet", b"nothing"),
        ("per_image.parquet", None),
    ],
)
def test_damaged_files_of_an_evaluation_are_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    write_evaluation(tmp_path, 4)
    if content is None:
        pyarrow.parquet.write_table(pyarrow.table({"key": ["seed-1/0.png"], "method": ["other"]}), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: .*(damaged|wrote it).*; delete it,? and run the same command again"):
        read_measurements(tmp_path, "LS", {"base": (1,), "LS": (1, 2), "MPD": (1, 2)})
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: can't be read .*No such file"):
        read_measurements(tmp_path, "LS", {"base": (1,), "LS": (1, 2), "MPD": (1, 2)})
