"""The project's own files: what an install needs."""

import ast
import re
import tomllib
from collections.abc import Mapping, Sequence

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from helpers.pins import pins
from helpers.places import ROOT

OPTIONAL = {"wandb", "bitsandbytes"}  # the user's choice; nothing here is tested with them


def test_every_direct_dependency_is_pinned_within_its_range_and_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(text) for text in project["dependencies"]]
    extras = project["optional-dependencies"]
    wanted += [Requirement(text) for name, extra in extras.items() if name != "official" for text in extra]
    beside_mediapipe = pins("constraints.txt") | pins("constraints-official.txt")
    check_pins(project["name"], wanted, pins("constraints.txt"))
    check_pins(project["name"], [*wanted, *map(Requirement, extras["official"])], beside_mediapipe)


def check_pins(project: str, wanted: Sequence[Requirement], pinned: Mapping[str, str]) -> None:
    explained = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for requirement in wanted:
        if requirement.name == project:
            continue  # one extra names another
        assert re.search(rf"\b{re.escape(requirement.name)}\b", explained), requirement.name
        if requirement.name not in OPTIONAL:
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_the_readme_s_links_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_no_model_s_own_code_is_ever_run() -> None:
    """Whatever picks a class by a model's own configuration is told not to run that model's code, nor to ask."""
    found = 0
    for file in sorted((ROOT / "src").rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            trusted = {word.arg: word.value for word in call.keywords}.get("trust_remote_code")
            if trusted is not None:
                assert isinstance(trusted, ast.Constant) and trusted.value is False, f"{file}:{call.lineno}"  # noqa: PT018
            if call.func.attr != "from_pretrained":
                continue
            owner = ast.unparse(call.func.value)
            if (owner.startswith("Auto") and owner != "AutoencoderKL") or owner.endswith("Pipeline"):
                found += 1
                assert trusted is not None, f"{file}:{call.lineno}: needs trust_remote_code=False"
            else:  # a class of transformers or diffusers, whatever the model says
                assert owner in (
                    "AutoencoderKL",
                    "BertTokenizer",
                    "CLIPModel",
                    "CLIPSegForImageSegmentation",
                    "CLIPTextConfig",
                    "CLIPTextModel",
                    "CLIPTextModelWithProjection",
                    "CLIPTokenizer",
                    "FlowMatchEulerDiscreteScheduler",
                    "SD3Transformer2DModel",
                    "kind.NETWORK",
                ), owner
    assert found >= 5


# Reading that isn't limited, and why: file to the calls in it.
READERS = {
    "utils/parse.py": {"json.loads"},  # the limited reader itself
    "cli/packages.py": {"json.loads"},  # lines that a process of this program prints
    "data/pipeline/engine.py": {"pickle.loads"},  # outcomes that workers of the same build send back
}
UNLIMITED = {"json.load", "json.loads", "yaml.load", "yaml.safe_load", "yaml.load_all", "yaml.full_load"}
UNLIMITED |= {"pickle.load", "pickle.loads", "marshal.load", "marshal.loads"}


def test_files_are_read_within_limits_and_never_unpickled() -> None:
    """JSON and YAML go through `utils/parse.py`, and weights that may be pickles are read as tensors alone."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "src" / "fairhuman").rglob("*.py")):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            name, words = ast.unparse(call.func), {word.arg: word.value for word in call.keywords}
            if name in UNLIMITED:
                found.setdefault(str(file.relative_to(ROOT / "src" / "fairhuman")), set()).add(name)
            elif name in ("torch.load", "np.load"):
                safe = words.get("weights_only" if name == "torch.load" else "allow_pickle")
                assert isinstance(safe, ast.Constant), f"{file}:{call.lineno}"
                assert safe.value is (name == "torch.load"), f"{file}:{call.lineno}"
            elif (call.func.attr == "from_pretrained" and "Model" in name) or name.endswith("Pipeline.from_pretrained"):
                safe = words.get("use_safetensors")
                assert isinstance(safe, ast.Constant) and safe.value is True, f"{file}:{call.lineno}"  # noqa: PT018
    assert found == READERS
