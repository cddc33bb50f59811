"""Classes of a base are named in `bases/` alone, and in what is SDXL's alone."""

import ast
import re
from pathlib import Path

import fairhuman

SOURCE = Path(fairhuman.__file__).parent
OF_A_BASE = re.compile(
    r".*Pipeline|.*Transformer2DModel|UNet2DConditionModel|(CLIP|T5|UMT5|Qwen|Gemma|Llama|Mistral)\w+|AutoencoderKL\w+"
)
# ControlNet, T2I-adapter, MoLE and refinement; SDXL's architecture, files and sampler; the costs of the paper's table.
SDXL_ALONE = {
    "compare/paper/cost.py",
    "generate/control_options.py",
    "generate/control_spec.py",
    "generate/sample.py",
    "models/architecture.py",
    "models/control.py",
    "models/controlnet.py",
    "models/mole.py",
    "models/mole_linear.py",
    "models/sdxl.py",
    "models/single_file.py",
    "models/t2i_adapter.py",
    "models/tokenizer.py",
    "refine/inpaint.py",
}


def named(file: Path) -> set[str]:
    """The classes of a base that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("diffusers", "transformers"):
            found |= {alias.name for alias in node.names if OF_A_BASE.fullmatch(alias.name)}
    return found


def test_classes_of_a_base_are_named_in_its_file_alone() -> None:
    files = {file.relative_to(SOURCE).as_posix(): file for file in SOURCE.rglob("*.py")}
    found = {name for name, file in files.items() if named(file) and not name.startswith("bases/")}
    extractors = {name for name in found if name.startswith(("evaluate/networks/", "data/", "utils/"))}
    assert found - extractors == SDXL_ALONE


def test_each_flow_base_is_named_once() -> None:
    for file in (SOURCE / "bases").glob("*.py"):
        pipelines = {name for name in named(file) if name.endswith("Pipeline")}
        assert len(pipelines) <= 1, file
