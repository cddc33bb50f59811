"""Classes of a base are named in `bases/` alone, and in what is SDXL's alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fairhuman
from fairhuman.bases.names import BASES

SOURCE = Path(fairhuman.__file__).parent
LIBRARIES = ("diffusers", "transformers")
# Pipelines, networks, VAEs, text encoders and tokenizers.
OF_A_BASE = re.compile(
    r"\w*Pipeline|\w*Transformer\dDModel|UNet\w+|ControlNet\w+|T2IAdapter|Autoencoder\w+"
    r"|(CLIP|T5|UMT5|Qwen|Gemma|Llama|Mistral|Siglip)\w+"
)
# Modules that name a class of a base, each with the reason. All bases but SDXL have one file.
SDXL_ALONE = {
    "compare/paper/cost.py": "the costs of the paper's table",
    "generate/control_options.py": "controls",
    "generate/control_spec.py": "controls",
    "generate/sample.py": "its sampler, UniPC, and its pictures from others",
    "models/architecture.py": "its architecture without weights, and the small one's",
    "models/base.py": "base.vae, in place of its own",
    "models/control.py": "controls",
    "models/controlnet.py": "ControlNet",
    "models/mole.py": "MoLE",
    "models/mole_linear.py": "MoLE",
    "models/sdxl.py": "its folders, and the small one",
    "models/single_file.py": "its single files",
    "models/t2i_adapter.py": "T2I-adapter",
    "models/tokenizer.py": "the small one's words",
    "refine/inpaint.py": "redrawing faces and hands",
    "data/caption/tokens.py": "builds count its tokens",
    "utils/clip_tokenizer.py": "its tokenizer without a download",
}
# CLIP as a judge of pictures, whatever drew them, and as a finder of regions.
JUDGES = {"evaluate/networks/clip_score.py", "detect/words.py"}
# Modules that ask whether a base is SDXL, or take it where none is given.
ASKS_FOR_SDXL = {
    "generate/lora.py": "LoRA files in other trainers' formats",
    "generate/sample.py": "its sampler",
    "models/lora.py": "LoRA files in other trainers' formats",
    "models/lora_file.py": "of other bases it reads what diffusers converts, too",
    "train/captions.py": "its files and hub ids have the words that ship",
    "train/memory.py": "its text encoders run in a step whose texts aren't cached",
}


def named(file: Path) -> Iterator[str]:
    """Yield the names in diffusers and transformers that a module imports, or takes from these modules."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in LIBRARIES:
            yield node.attr


def outside_bases() -> dict[str, Path]:
    files = {file.relative_to(SOURCE).as_posix(): file for file in SOURCE.rglob("*.py")}
    return {name: file for name, file in files.items() if not name.startswith("bases/")}


def test_classes_of_a_base_are_named_in_its_file_alone() -> None:
    found = {name for name, file in outside_bases().items() if any(map(OF_A_BASE.fullmatch, named(file)))}
    assert found == SDXL_ALONE.keys() | JUDGES


def test_all_that_a_base_names_is_looked_for() -> None:
    """The classes that the bases' own files name, and those of SDXL's pipeline."""
    known = {name for file in (SOURCE / "bases").glob("*.py") for name in named(file)}
    known |= {"CLIPTextModelWithProjection", "UNet2DConditionModel", "AutoencoderKL", "T5EncoderModel", "Qwen3Model"}
    free = {name for name in known if not OF_A_BASE.fullmatch(name)}
    assert {name for name in free if not name.endswith("Scheduler")} == {
        "AutoConfig",
        "AutoTokenizer",
        "ConfigMixin",
        "utils",
    }


def test_bases_are_told_apart_in_few_places() -> None:
    modules = {entry.place.partition(":")[0]: entry.place.partition(":")[2] for entry in BASES.values()}
    found = set()
    for name, file in outside_bases().items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairhuman.bases."):
                module = (node.module or "").rpartition(".")[2]
                classes = {alias.name for alias in node.names} & {modules.get(module)}
                found |= {(name, kind) for kind in classes}
    assert found == {(name, "SDXL") for name in ASKS_FOR_SDXL}


def test_each_flow_base_is_named_once() -> None:
    for file in (SOURCE / "bases").glob("*.py"):
        pipelines = {name for name in named(file) if name.endswith("Pipeline")}
        assert len(pipelines) <= 1, file
