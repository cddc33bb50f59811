"""Memory of a LoRA on each published base, computed from shapes and never run: the table of `docs/bases.md`."""

from dataclasses import asdict, replace
from typing import Any

from common import arguments, save
from fairhuman import config
from fairhuman.bases.names import BASES, ON_THE_HUB
from fairhuman.bases.published import PUBLISHED
from fairhuman.train.memory import memory_of
from fairhuman.train.recipe import TrainRecipe

GIB = 2**30
RUN = {
    **{"data": "none", "out": "none", "steps": 1, "resolution": 1024, "batch_size": 1, "precision": "bf16"},
    **{"gradient_checkpointing": True, "lora": {"rank": 16}, "fairness": {"mode": "output"}, "cache": {"text": True}},
}


def main() -> None:
    """Compute the row of every base in `PUBLISHED`."""
    options = arguments(__doc__)
    results: dict[str, Any] = {}
    print("| base | weights | text encoders of them | Adam | step | exact step | device | texts cached | no previews |")
    for model in list(PUBLISHED)[: 1 if options.quick else None]:
        memory = memory_of(config.build(TrainRecipe, {**RUN, "model": model}))
        without = replace(memory, resting=None, preview=None)
        needed = {
            "device": without.needed,
            "texts cached": memory.needed,
            "no previews": replace(memory, preview=None).needed,
        }
        results[model] = {"base": BASES[ON_THE_HUB[model]["_class_name"]].title, **asdict(memory), **needed}
        parts = [memory.frozen + memory.trained, memory.resting, memory.optimizer, memory.step, memory.audit]
        shown = [f"{part / GIB:.1f}" for part in (*parts, *needed.values()) if part is not None]
        print(f"| {model} | {' | '.join(shown)} |", flush=True)
    save("base_memory", RUN, results, options)


if __name__ == "__main__":
    main()
