"""Pictures of a run belong to its LoRA, also where an earlier version drew them."""

from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from fairhuman.compare.jobs import sampling_job
from fairhuman.generate.record import to_entry
from fairhuman.generate.sample import save_png
from fairhuman.models.fingerprint import sampled_fingerprint, weights_fingerprint
from fairhuman.train.recipe import TrainRecipe


def test_pictures_of_another_lora_are_drawn_again(tmp_path: Path) -> None:
    run = TrainRecipe(data=tmp_path, out=tmp_path / "run", steps=1)
    run.product.mkdir(parents=True)
    file = run.product / "pytorch_lora_weights.safetensors"
    save_file({"unet.a.lora_A.weight": torch.zeros(2**18), "unet.a.lora_B.weight": torch.zeros(2**18)}, file)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    job = sampling_job("pictures", pictures, tmp_path / "prompts.txt", 1, ["--lora", run.product])

    def drawn_with(content: str | None) -> None:
        save_png(Image.new("RGB", (8, 8)), pictures / "00000-00.png", to_entry({"lora": {"content": content}}))

    for content, stale in ((weights_fingerprint(file), False), (sampled_fingerprint(file), False), ("another", True)):
        drawn_with(content)
        assert (job.redraw(), job.done()) == (stale, 1.0 - stale)
    drawn_with(weights_fingerprint(file))
    weights = bytearray(file.read_bytes())
    weights[-6000] = 1  # between the pieces that earlier versions hashed
    file.write_bytes(weights)
    assert (job.redraw(), job.done()) == (True, 0.0)
