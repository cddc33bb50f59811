"""Builds in processes of their own, to be killed."""

import os
import signal
import subprocess
import sys

OPTIONS = ["min_side=null", "detect=null", "caption.kind=text", "block_rows=2", "shard_rows=16"]


def started(source, out, *options, workers=2):
    """`fairhuman data build` in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "fairhuman.cli",
        "data",
        "build",
        source,
        out,
        *OPTIONS,
        *options,
        "--workers",
        workers,
    ]
    return subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def finished(process):
    try:
        output, _ = process.communicate(timeout=1800)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return process.returncode, output
