import logging

from fairhuman.data.pipeline.engine import _import_daft


def test_daft_logs_nothing_about_workers_that_end_slowly() -> None:
    _import_daft(None)
    logger = logging.getLogger("daft_local_execution.intermediate_ops.udf")
    assert not logger.isEnabledFor(logging.ERROR)
