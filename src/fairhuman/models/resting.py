"""Networks that leave the device while they aren't needed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fairhuman.utils.torch_device import is_out_of_memory


class Resting:
    """Networks that rest in main memory between their uses, so that the device has more memory for a step.

    Moving changes no bit, and results are always computed on the device. On a CPU nothing moves.

    Attributes:
        device: where they work.
        resting: whether the networks rest.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device, resting: bool = False) -> None:
        self._networks, self.device = networks, device
        self.resting = resting

    def rest(self) -> None:
        """Move the networks to main memory."""
        if not self.resting:
            self._move(torch.device("cpu"))
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # whole blocks, which a step can divide as it needs
            self.resting = True

    def wake(self) -> None:
        """Move the networks to the device."""
        if self.resting:
            self._move(self.device)
            self.resting = False

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Have the networks on the device inside the block; then they rest again if they rested before."""
        rested = self.resting
        self.wake()
        try:
            yield
        finally:
            if rested:
                self.rest()

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Have the networks in main memory inside the block; then they are on the device again if they were before."""
        rested = self.resting
        self.rest()
        try:
            yield
        finally:
            if not rested:
                self.wake()

    def with_room(self, work: Callable[[], Tensor]) -> Tensor:
        """Return the result of `work`, which needs none of the networks.

        If the device has too little memory beside them, they rest meanwhile.
        """
        try:
            return work()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        with self.asleep():
            return work()

    def _move(self, device: torch.device) -> None:
        for network in self._networks:
            network.to(device)
