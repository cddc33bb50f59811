"""The detectors that ship: CPU seconds a picture, and how many of the known boxes they find.

    .venv/bin/python benchmarks/detectors.py [--photos FOLDER] [--quick]

On rendered people of 512 px, whose boxes are true, or on every 24th photo of a data set with boxes. Run it with another
version of the package on the PYTHONPATH to compare: CPU time is that of this process and all of its threads.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import arguments, save, spread
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.detect.overlap import corners, match_boxes
from fairhuman.detect.settings import DetectSettings, detector_names, open_detectors
from fairhuman.stats.estimate import wilson
from fairhuman.synth.run import render_people
from fairhuman.synth.settings import SynthSettings

OVERLAP = 0.3  # IoU of a match
EVERY = 24
PARTS = ("face", "hand")


def measure(folder: Path, every: int, most: int) -> dict[str, Any]:
    """Find everything in some of the pictures of a data set."""
    records = list(read_source(folder, PARTS, SourceSettings(), LoadReport()))[::every][:most]
    seconds, matched, true = [], dict.fromkeys(PARTS, 0), dict.fromkeys(PARTS, 0)
    with open_detectors(DetectSettings()) as find:
        find(np.zeros((512, 512, 3), np.uint8))
        for record in records:
            picture = np.asarray(decode(record.image).picture)
            before = time.process_time()
            found = find(picture)
            seconds.append(time.process_time() - before)
            for part in PARTS:
                boxes = corners(record.boxes.get(part) or ())
                true[part] += len(boxes)
                matched[part] += len(match_boxes(corners([one.box for one in found[part]]), boxes, OVERLAP))
    return {
        "detectors": detector_names(DetectSettings()),
        "pictures": len(records),
        "cpu_s_per_picture": {"mean": sum(seconds) / len(seconds), **spread(seconds)},
        "recall": {part: wilson(matched[part], true[part]).plain() for part in PARTS if true[part]},
    }


def main() -> None:
    options = arguments(__doc__, photos="photos with boxes, a data set in any format")
    most = 2 if options.quick else 96
    with tempfile.TemporaryDirectory() as name:
        folder, every = options.photos, EVERY
        if folder is None:
            folder, every = Path(name) / "people", 1
            render_people(folder, SynthSettings(count=most, size=512, seed=11), ConsoleDisplay())
        save("detectors", {"overlap": OVERLAP}, measure(folder, every, most), options)


if __name__ == "__main__":
    main()
