"""Shard the trained weights over processes with FSDP2, for gradients and optimizer state beyond one device's memory."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from diffusers.models.adapter import AdapterBlock
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from fairhuman.errors import TrainingError
from fairhuman.fairness.distributed import full_tensor, shard_of, world_size
from fairhuman.models.model import TrainableModel
from fairhuman.train.model import networks_of_step

# Each of these is gathered when it is used and resharded after it; all other parameters with the whole network.
UNITS = (BasicTransformerBlock, ResnetBlock2D, AdapterBlock)


def shard(model: TrainableModel, device: torch.device) -> list[nn.Module]:
    """Shard the trained network over all processes, in place; return it in a list. Frozen networks stay replicated.

    Parameters become `DTensor`s, and so do gradients and the state of an optimizer that is created afterwards.

    Raises:
        TrainingError: PyTorch is too old.
    """
    if not hasattr(FSDPModule, "reset_iter_state"):
        raise TrainingError(f"processes.sharding is fsdp, which needs PyTorch 2.14, found {torch.__version__}")
    network = networks_of_step(model)[-1]  # the control's, where there is one
    shard_network(network, device)
    return [network]


def shard_network(network: nn.Module, device: torch.device) -> None:
    """Shard a network in place: each of its `UNITS`, and the remaining parameters together."""
    mesh = init_device_mesh(device.type, (world_size(),))
    blocks = getattr(network, "_repeated_blocks", None) or ()  # the names of a transformer's blocks
    for module in list(network.modules()):
        if isinstance(module, UNITS) or type(module).__name__ in blocks:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
    fully_shard(network, mesh=mesh, reshard_after_forward=True)


@contextmanager
def gathered(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Gather the full weights in all processes inside the block, so that a single process can use the networks.

    All processes must enter and leave the block. The device must have memory for the full weights.
    """
    modules = [cast("FSDPModule", m) for network in networks for m in network.modules() if isinstance(m, FSDPModule)]
    for module in modules:
        module.unshard()
        module.set_reshard_after_forward(False, recurse=False)
    used: set[nn.Module] = set()
    handles = [network.register_forward_hook(lambda network, *_: used.add(network)) for network in networks]
    try:
        yield
    finally:
        for module in modules:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()
        for handle in handles:
            handle.remove()
        for network in used:
            # Otherwise FSDP2 would prefetch, in the next backward pass, what this process alone has used.
            cast("FSDPModule", network).reset_iter_state()


def gather_state(state: Any, keep: bool) -> Any:
    """Return a nested state with all sharded tensors gathered, on the CPU; all processes must call this.

    keep: whether this process keeps the tensors; others take part, one tensor at a time, and get None instead.
    """
    if isinstance(state, Tensor):
        full = full_tensor(state)
        return full.cpu() if keep else None
    if isinstance(state, Mapping):
        return {name: gather_state(value, keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(gather_state(value, keep) for value in state)
    return state


def scatter_state(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return a gathered optimizer `state_dict` (see `gather_state`) as shards for `optimizer`'s parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shards = {
        number: {
            name: shard_of(value, parameters[number])
            if isinstance(value, Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return {**state, "state": shards}
