"""Averages over processes in bounded buckets; sums over the shards of FSDP2 parameters."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

_BUCKET_BYTES = 32 * 2**20


def world_size(group: dist.ProcessGroup | None = None) -> int:
    """Return the number of processes; 1 outside a distributed run."""
    return dist.get_world_size(group) if dist.is_available() and dist.is_initialized() else 1


def average_(tensors: Iterable[Tensor], group: dist.ProcessGroup | None = None) -> None:
    """Replace each tensor by its mean over all processes, in place.

    All processes get bit-identical results, as one collective computes the mean of each bucket. Tensors are copied into
    buckets of at most 32 MiB (or one tensor), so that many small tensors need few messages and little memory. Means of
    bfloat16 are computed in float32.
    """
    size = world_size(group)
    if size == 1:
        return
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket]) if len(bucket) > 1 else bucket[0].reshape(-1)
        flat = flat.float() if flat.dtype == torch.bfloat16 else flat
        dist.all_reduce(flat, group=group)
        flat.div_(size)
        offset = 0
        for tensor in bucket:
            tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
            offset += tensor.numel()


def any_across_processes(
    flags: Sequence[Sequence[bool]], device: torch.device, group: dist.ProcessGroup | None = None
) -> list[list[bool]]:
    """Return for each flag whether it is set in any process.

    The flags are almost always equal in all processes, so a hash is compared first (two numbers); the flags themselves
    are exchanged only if the hashes differ.
    """
    text = bytes(flag for row in flags for flag in row)
    number = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")
    ends = torch.tensor([number, -number], device=device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=group)
    if int(ends[0]) == -int(ends[1]):
        return [list(row) for row in flags]
    table = torch.tensor(flags, dtype=torch.int32, device=device)
    dist.all_reduce(table, op=dist.ReduceOp.MAX, group=group)
    return [[value > 0 for value in row] for row in table.tolist()]


def present_in_any_process(
    here: Sequence[bool], device: torch.device, group: dist.ProcessGroup | None = None
) -> list[bool]:
    """Return for each objective whether it is present in any process."""
    return list(here) if world_size(group) == 1 else any_across_processes([here], device, group)[0]


def average_gradients_(
    gradients: Sequence[list[Tensor | None]],
    parameters: Sequence[Tensor],
    group: dist.ProcessGroup | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Average K gradients over processes, one tensor per parameter; a missing tensor counts as zero.

    `dtype` is that of the gradients, None: the parameters'. Gradients of sharded parameters are averaged already.
    """
    if world_size(group) == 1 or is_sharded(parameters):
        return
    here = [[tensor is not None for tensor in gradient] for gradient in gradients]
    anywhere = any_across_processes(here, parameters[0].device, group)
    for gradient, row in zip(gradients, anywhere, strict=True):
        for p, parameter in enumerate(parameters):
            if row[p] and gradient[p] is None:
                gradient[p] = torch.zeros_like(parameter, dtype=dtype)
        average_((tensor for tensor in gradient if tensor is not None), group)


def sum_over_processes(table: Tensor, device: torch.device, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return the sum over processes of a small CPU tensor."""
    if world_size(group) == 1:
        return table
    # Backends for accelerators may lack float64, but not float32.
    kind = torch.float64 if device.type in ("cpu", "cuda") else torch.float32
    moved = table.to(device, kind)
    dist.all_reduce(moved, group=group)
    return moved.to(table)


def average_losses(
    losses: Sequence[Tensor | None], device: torch.device, group: dist.ProcessGroup | None = None
) -> list[float | None]:
    """Return the mean over processes of each loss, float64; None where it is absent in all of them.

    Where only some processes lack an objective, it counts as 0 there, as its gradient does.
    """
    values = iter(scalar_values([loss for loss in losses if loss is not None]))
    rows = [[0.0, 0.0] if loss is None else [next(values), 1.0] for loss in losses]
    table = sum_over_processes(torch.tensor(rows, dtype=torch.float64), device, group)
    rows = [[total / world_size(group), count] for total, count in table.tolist()]
    return [value if count > 0.0 else None for value, count in rows]


def scalar_values(scalars: Sequence[Tensor]) -> list[float]:
    """Return the values of one-element tensors, copied from their device in one transfer."""
    return torch.stack([scalar.detach().reshape(()) for scalar in scalars]).tolist() if scalars else []


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        nbytes = tensor.numel() * tensor.element_size()
        if bucket and (size + nbytes > _BUCKET_BYTES or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += nbytes
    if bucket:
        yield bucket


# --- sharded parameters: FSDP2, `torch.distributed.fsdp.fully_shard` -------------------------------------------------


def is_sharded(parameters: Sequence[Tensor]) -> bool:
    """Return whether the parameters are sharded.

    Raises:
        ValueError: only some are sharded, or one is sharded in another way than by `fully_shard`.
    """
    parts = [parameter for parameter in parameters if isinstance(parameter, DTensor)]
    if not parts:
        return False
    if len(parts) < len(parameters):
        raise ValueError(f"parameters must all be sharded or none, found {len(parts)} of {len(parameters)}")
    for parameter in parts:
        if sum(isinstance(placement, Shard) for placement in parameter.placements) != 1:
            raise ValueError(f"parameters must be sharded over one dimension of a mesh, found {parameter.placements}")
    return True


def sum_over_shards(table: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the sum over shards of a small tensor that each process computed from its shards; unsharded: `table`.

    On a 2-D mesh (hybrid sharding) the sum is over the sharded dimension.
    """
    if not is_sharded(parameters):
        return table
    first = parameters[0]
    assert isinstance(first, DTensor)
    dimension = next(i for i, placement in enumerate(first.placements) if isinstance(placement, Shard))
    return sum_over_processes(table, first.device, first.device_mesh.get_group(dimension))


def shard_of(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return this process's shard of a full-shape tensor, sharded like `parameter`; unsharded: the tensor itself.

    All processes must hold the full tensor.
    """
    if not isinstance(parameter, DTensor):
        return tensor
    moved = tensor.to(parameter.device)
    return distribute_tensor(moved, parameter.device_mesh, parameter.placements, src_data_rank=None)


def full_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from all processes, which must all call this; an unsharded one as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def as_shard(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a local shard of a gradient as a tensor that can be assigned to `parameter.grad`."""
    if not isinstance(parameter, DTensor):
        return tensor
    mesh, placements = parameter.device_mesh, parameter.placements
    shape, stride = parameter.shape, parameter.stride()
    return DTensor.from_local(tensor, mesh, placements, run_check=False, shape=shape, stride=stride)
