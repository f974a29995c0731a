"""The tensors that this process holds for others, by reference id."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from tridist.icp.tensor import Tensor
from tridist.icp.tensor_uri import new_tensor_id


class Register(Protocol):
    """Who gives ids out, and hears when one is given up. Called with the store's lock held, from any thread."""

    def enter(self, tensor: Tensor, expires: float) -> str:
        """A new id, never given out before.

        Args:
            tensor: stays where it is until its id is struck out.
            expires: when its lease ends, on the store's clock.
        """
        raise NotImplementedError

    def strike(self, tensor_id: str) -> None:
        """An id that `enter` gave out is no more; after this the tensor's memory may be given up."""
        raise NotImplementedError


class RandomIds(Register):
    """Ids that say nothing."""

    @override
    def enter(self, tensor: Tensor, expires: float) -> str:
        return new_tensor_id()

    @override
    def strike(self, tensor_id: str) -> None:
        pass


@dataclass(slots=True)
class _Held:
    tensor: Tensor
    expires: float


class TensorStore:
    """References to tensors, each with an id and a lease of its own.

    A tensor stays for as long as one reference names it: several ids share one `Tensor`, and Python's own counting
    frees its memory with the last. Safe to use from several threads: a plane's transfer thread looks up what the user's
    thread puts.

    Args:
        clock: seconds, monotonic; tests bring their own.
        register: gives the ids out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, register: Register | None = None) -> None:
        self._held: dict[str, _Held] = {}
        self._register = register or RandomIds()
        self._lock = threading.Lock()
        self._clock = clock

    def add(self, tensor: Tensor, lease: float) -> str:
        """Hold a tensor for ``lease`` seconds; returns the new reference's id."""
        expires = self._clock() + lease
        with self._lock:
            tensor_id = self._register.enter(tensor, expires)
            self._held[tensor_id] = _Held(tensor, expires)
        return tensor_id

    def find(self, tensor_id: str) -> Tensor | None:
        """The tensor, or None for an id that is unknown, released or expired."""
        with self._lock:
            held = self._held.get(tensor_id)
            if held is None:
                return None
            if held.expires <= self._clock():
                self._drop(tensor_id)
                return None
            return held.tensor

    def duplicate(self, tensor_id: str, lease: float) -> str | None:
        """A second reference to the same tensor; None for an id that is unknown, released or expired."""
        tensor = self.find(tensor_id)
        return None if tensor is None else self.add(tensor, lease)

    def release(self, tensor_id: str) -> bool:
        """Drop a reference; False when it was not there."""
        with self._lock:
            if tensor_id not in self._held:
                return False
            self._drop(tensor_id)
            return True

    def expire(self) -> int:
        """Drop every reference whose lease has ended; returns how many."""
        with self._lock:
            now = self._clock()
            ended = [tensor_id for tensor_id, held in self._held.items() if held.expires <= now]
            for tensor_id in ended:
                self._drop(tensor_id)
        return len(ended)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            for tensor_id in list(self._held):
                self._drop(tensor_id)

    def usage(self) -> tuple[int, int]:
        """How many references are open, and how many bytes of distinct tensors they hold."""
        with self._lock:
            tensors = {id(held.tensor): held.tensor.nbytes for held in self._held.values()}
            return len(self._held), sum(tensors.values())

    def _drop(self, tensor_id: str) -> None:
        # In this order: whoever reads the tensor's memory by its entry has to see first that it goes.
        self._register.strike(tensor_id)
        del self._held[tensor_id]
