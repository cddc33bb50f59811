"""Imported by a fork server before all else: waits for its first request, or for the end of those that could ask."""

import re
import select
import sys

found = re.search(r"main\((\d+), (\d+), ", sys.orig_argv[-1])  # multiprocessing.forkserver.main(listener, alive, ...)
assert found is not None, sys.orig_argv
select.select([int(number) for number in found.groups()], [], [])
