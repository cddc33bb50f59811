"""Imported by a fork server before all else: waits for its first request; ends it where nobody is left to ask."""

import re
import select
import sys

found = re.search(r"main\((\d+), (\d+), ", sys.orig_argv[-1])  # multiprocessing.forkserver.main(listener, alive, ...)
assert found is not None, sys.orig_argv
listener, alive = map(int, found.groups())
if listener not in select.select([listener, alive], [], [])[0]:
    sys.exit()
