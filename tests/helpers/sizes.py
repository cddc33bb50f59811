"""Where a model of SDXL's true size, or a small one in its place, and all that is made of it lies."""

from dataclasses import dataclass
from pathlib import Path

from fairhuman.bench.noise import write_noise
from fairhuman.models.checkpoint_file import Architecture


@dataclass(frozen=True)
class Place:
    """A model of some shape, and the folder of what is made of it."""

    shape: Architecture
    folder: Path
    side: int  # pixels of a picture
    rank: int

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def true(self) -> bool:
        return self.shape == "sdxl"

    def data(self, side: int) -> Path:
        """Four pictures of noise."""
        folder = self.folder / f"noise-{side}"
        if not (folder / "metadata.jsonl").exists():
            write_noise(folder, 4, (side, side))
        return folder
