"""Taking what a producer sends through UCX."""

from __future__ import annotations

import asyncio
from typing import Any

from tridist.errors import TransferError
from tridist.icp.tensor_uri import TensorUri
from tridist.icp.ucx.config import UcpDataPlaneConfig
from tridist.icp.ucx.lane import LaneError
from tridist.icp.ucx.link import Link

_LARGE = 1 << 20
"""Bytes from which one transfer fills the way from the producer, and several at once only wait for each other. Taking
them one by one bounds what UCX has begun and cannot stop when the connection ends."""


class Receiver:
    """The receiving end of one link's lane. Calls belong on the context's thread.

    Args:
        link: greeted by the first call.
        config: the plane's.
    """

    def __init__(self, link: Link, config: UcpDataPlaneConfig) -> None:
        self._link = link
        self._config = config
        self._large = asyncio.Lock()

    async def receive(self, uri: TensorUri, buffer: Any, tag: int, size: int) -> None:
        """Fill ``buffer`` with the ``size`` bytes that are sent under a tag.

        Raises:
            TransferError: the connection ended first.
        """
        if size >= _LARGE:
            async with self._large:
                await self._receive(uri, buffer, tag, size)
        elif size:
            await self._receive(uri, buffer, tag, size)

    async def _receive(self, uri: TensorUri, buffer: Any, tag: int, size: int) -> None:
        lane = self._link.lane
        assert lane is not None  # noqa: S101 (a greeted link has one; for the type checker)
        # A late peer loses its connection, since UCX can take nothing back.
        seconds = self._config.transfer_timeout(size)
        timer = asyncio.get_running_loop().call_later(seconds, self._link.abort, late(seconds))
        try:
            await lane.receive(buffer, tag)
        except LaneError as error:
            raise TransferError(str(uri), str(error)) from error
        finally:
            timer.cancel()
        if self._link.peer_has_ended():
            # It may have given the memory up while UCX read from it.
            raise TransferError(str(uri), "the producer closed during the transfer")


def late(seconds: float) -> str:
    """Why a link ends whose peer has not delivered within so many seconds."""
    return f"the peer did not deliver within {seconds:g} s"
