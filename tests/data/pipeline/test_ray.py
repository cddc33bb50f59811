"""The same build on a Ray cluster of two workers, which this test starts."""

import pytest

from helpers.killed_builds import finished, started
from helpers.small_builds import contents


@pytest.mark.slow
def test_the_ray_runner_gives_the_same_rows(many, whole, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    context = ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        address = context.address_info["gcs_address"]
        code, output = finished(started(many, tmp_path / "out", "--runner", "ray", "--address", address))
    finally:
        ray.shutdown()
    assert code == 0, output
    assert contents(tmp_path / "out") == whole
