"""How a consumer finds out whether a producer is its neighbour."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Protocol

from tridist.icp.ucx.control import Reply, Status
from tridist.icp.ucx.directory import READABLE
from tridist.icp.ucx.neighbour import Doorbell, Neighbour

_LOG = logging.getLogger(__name__)


class Invite(Protocol):
    """Asks the producer to ring; gives its answer, or why there is none."""

    def __call__(self, name: str, /, *, tag: int) -> Awaitable[Reply | str]:
        """Ask it to say ``tag`` on the socket ``name``."""


async def meet(peer: str, invite: Invite) -> Neighbour | None:
    """The producer as a neighbour whose memory can be read; None when it is none.

    Args:
        peer: its name, for logs.
        invite: asks it.
    """
    try:
        bell = Doorbell()
    except OSError as error:
        _LOG.debug("no Unix socket for %s: %s", peer, error)
        return None
    try:
        answer = await invite(bell.name, tag=bell.token)
        neighbour = None if isinstance(answer, str) or answer.status is not Status.OK else bell.answer()
    finally:
        bell.close()
    if neighbour is None:
        _LOG.debug("the memory of %s is not to be read: its tensors come through UCX", peer)
    return neighbour


def can_be_neighbours(transport: asyncio.Transport | None) -> bool:
    """Whether the other end of a stream can be a neighbour at all: on this machine, and a machine that allows it."""
    if transport is None or not READABLE:
        return False
    own, other = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
    # A connection to an address of one's own machine comes from that address.
    return bool(own and other and own[0] == other[0])
