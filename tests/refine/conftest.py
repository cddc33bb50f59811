"""Tiny things of other parts that these tests use too."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path += [str(TESTS / "evaluate"), str(TESTS / "detect")]
