"""Which layers of an SDXL other programs find in a LoRA file; each returns the file's key of a weight by its name."""

from collections.abc import Mapping

from fairhuman.models.original import PREFIXES

UNET = PREFIXES["unet"]


def comfyui(tensors: Mapping[str, object], base: Mapping[str, object]) -> dict[str, str]:
    """ComfyUI, `comfy/lora.py`, model_lora_keys_unet and load_lora: its key of a weight to ours."""
    prefix = "model.diffusion_model."
    keys = {
        "lora_unet_" + name.removeprefix(prefix).removesuffix(".weight").replace(".", "_"): name
        for name in base
        if name.startswith(prefix) and name.endswith(".weight")
    }
    return {name: key for key, name in keys.items() if f"{key}.lora_up.weight" in tensors}


def a1111(tensors: Mapping[str, object], base: Mapping[str, object]) -> dict[str, str]:
    """A1111, `extensions-builtin/Lora/networks.py`: assign_network_names_to_compvis_modules and load_network."""
    modules = {name.removeprefix("model.").removesuffix(".weight").replace(".", "_"): name for name in base}
    found = {}
    for key in {key.split(".", 1)[0] for key in tensors}:
        name = modules.get(key.replace("lora_unet", "diffusion_model"))  # original names need no conversion
        if name is not None:
            found[name] = key
    return found


def kohya(tensors: Mapping[str, object], base: Mapping[str, object]) -> dict[str, str]:
    """kohya-ss/sd-scripts, `networks/sdxl_merge_lora.py`, merge_to_sd_model: prefix + "." + module, dots as _."""
    modules = {}
    for name in base:
        if name.startswith(UNET) and name.endswith(".weight"):
            module = name.removeprefix(UNET).removesuffix(".weight")
            modules[("lora_unet" + "." + module).replace(".", "_")] = name
    found = {}
    for key in tensors:
        if "lora_down" in key:
            stem = ".".join(key.split(".")[:-2])
            if stem in modules:
                found[modules[stem]] = stem
    return found
