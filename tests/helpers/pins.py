"""The versions that are tested together."""

import re

from packaging.utils import canonicalize_name

from helpers.places import ROOT


def pins(file: str) -> dict[str, str]:
    """Versions in `constraints.txt` or `constraints-official.txt`, by canonical name."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.+!]+", line)]
    assert not wrong, f"{file} holds names and versions alone"
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
