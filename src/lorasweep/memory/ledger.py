"""What tensors take while code runs on fake ones: bytes held now, the most so far, and what a compiler would keep."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

AGAIN = {
    torch.ops.aten._to_copy.default, torch.ops.aten.clone.default, torch.ops.aten.cat.default,
    torch.ops.aten.mean.dim, torch.ops.aten.sum.dim_IntList,
}  # fmt: skip
"""Besides pointwise operations, what torch's compiler computes a second time rather than keep."""


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps account of the memory of all tensors that operations make while it is entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        self._bytes: list[int] = []
        self._inputs: list[list[int] | None] = []
        """What a tensor can be computed from again; None: it cannot."""
        self._needed: set[int] = set()

    def ignore(self, tensors: Iterable[torch.Tensor]) -> None:
        """Leave tensors that are there already out of the account."""
        for tensor in tensors:
            self._enter(tensor.untyped_storage(), 0, [])

    def need(self, *tensors: torch.Tensor) -> None:
        """Note what an operation needs in its backward that no compiler computes again: it is no pointwise one."""
        self._needed |= {self._numbers[tensor.untyped_storage()] for tensor in tensors}

    def number(self, tensor: torch.Tensor) -> int:
        """Return the number of a tensor's memory; views of one share it."""
        return self._numbers[tensor.untyped_storage()]

    def compiled_bytes(self, given: int, kept: set[int]) -> int:
        """Return what compiled code keeps for its backward, where plain code keeps `kept` of what it makes of `given`.

        It keeps operands of matrix products and attention. Of what is left it keeps only what cannot be had from that
        by pointwise operations, and of a chain of those the narrowest place: of a norm's input its 16 bits, not the 32
        it is widened to. (The minimal cut of torch's partitioner, approached from the end.)
        """
        chosen = {number for number in kept if number in self._needed or self._inputs[number] is None} | {given}
        for number in sorted(kept - chosen):
            if not self._is_available(number, chosen):
                chosen.add(self._narrowest(number, chosen))
        return sum(self._bytes[number] for number in chosen - {given})

    def _is_available(self, number: int, chosen: set[int]) -> bool:
        inputs = self._inputs[number]
        return number in chosen or (inputs is not None and all(self._is_available(each, chosen) for each in inputs))

    def _narrowest(self, number: int, chosen: set[int]) -> int:
        missing = [each for each in self._inputs[number] or [] if not self._is_available(each, chosen)]
        if len(missing) == 1 and self._bytes[missing[0]] < self._bytes[number]:
            return self._narrowest(missing[0], chosen)
        return number

    def _enter(self, storage: Any, size: int, inputs: list[int] | None) -> None:
        if storage in self._numbers:
            return
        self._numbers[storage] = len(self._bytes)
        self._bytes.append(size)
        self._inputs.append(inputs)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._leave, size)

    def _leave(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and enter what it makes."""
        result = function(*args, **(kwargs or {}))
        given = [tensor.untyped_storage() for tensor in _tensors((args, kwargs))]
        known = {self._numbers[storage] for storage in given if storage in self._numbers}
        made = [storage for storage in (t.untyped_storage() for t in _tensors(result)) if storage not in self._numbers]
        again = torch.Tag.pointwise in function.tags or function in AGAIN
        if made and not again:
            self._needed |= known
        for storage in made:
            self._enter(storage, storage.nbytes(), sorted(known) if again else None)
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
