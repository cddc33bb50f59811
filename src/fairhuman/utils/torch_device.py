"""A device by its name."""

import torch

from fairhuman.errors import ModelError


def device_named(setting: str, name: str | None) -> torch.device:
    """The device that a setting names; None: a GPU if there is one.

    Raises:
        ModelError: this machine has no such device; names the setting.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{setting}: expected a device of this machine, found {name!r}") from error
    return device
