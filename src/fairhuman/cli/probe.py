"""Devices and imports, which `fairhuman doctor` tries in a separate process, as a broken one may end the process.

`python -m fairhuman.cli.probe MODULE ...` prints a JSON object a line: {"devices": [...]}, then for each module
{"start": name} and {"module": name, "error": text or null}.
"""

import importlib
import json
import sys
import warnings


def devices() -> list[str]:
    """Return a line for each device, after a small matrix product on it, and PyTorch's warnings."""
    import torch

    with warnings.catch_warnings(record=True) as warned:  # such as a driver that is too old
        warnings.simplefilter("always")
        cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(cuda):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        names[f"cuda:{index}"] = f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if torch.backends.mps.is_available():
        names["mps"] = "Apple GPU; models of captions can use it, training and drawing don't"
    for device in names:
        one = torch.ones(8, 8, device=device)
        if float((one @ one).sum()) != 512.0:
            raise RuntimeError(f"{device} gives a wrong matrix product")
    lines = [f"{device}: {name}" for device, name in names.items()]
    if not torch.cuda.is_available():
        lines.append("no GPU found: everything runs on the CPU, which is slow for SDXL of full size")
    return [*lines, *(" ".join(str(one.message).split()) for one in warned)]


def main(modules: list[str]) -> None:
    """Import each module and print the result."""
    warnings.simplefilter("ignore")
    for module in modules:
        _say({"start": module})
        error = None
        try:
            importlib.import_module(module)
            if module == "torch":
                _say({"devices": devices()})
        except Exception as found:
            error = " ".join(f"{type(found).__name__}: {found}".split())
        _say({"module": module, "error": error})


def _say(line: object) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
