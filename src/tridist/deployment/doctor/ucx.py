"""The check of the data plane: how fast tensors move between two processes of this machine, and over what.

Copies out of the producer's memory do without UCX, but between processes of different users or machines it is needed:
so it is looked at in any case.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection

import numpy as np

from tridist.deployment.doctor.checks import CheckSettings
from tridist.deployment.doctor.report import Outcome
from tridist.icp.messages import TensorReference
from tridist.icp.status import DataPlaneStatistics
from tridist.icp.ucx import UcpDataPlane, UcpDataPlaneConfig
from tridist.icp.ucx.environment import load_ucxx

_SIZE = 64 << 20
_ROUNDS = 5
_GIGA = 1e9
_NETWORK = frozenset({"tcp", "udp"})
_START_SECONDS = 30.0
_PACKAGES = ("ucxx-cu12", "libucx-cu12", "ucxx-cu13", "libucx-cu13")


def check_ucx(settings: CheckSettings) -> Outcome:
    """Fetch a large tensor from another process, a few times, as configured and through UCX."""
    load_ucxx()
    usual, seconds, through_ucx = _measure(settings.planes.tensors)
    rate = _SIZE / seconds / _GIGA
    direct, transports = set(usual.transports) - set(through_ucx.transports), sorted(through_ucx.transports)
    facts = {
        "transports": transports,
        "direct": bool(direct),
        "gigabytes_per_second": round(rate, 2),
        "versions": _versions(),
        "secret": settings.planes.tensors.secret is not None,
    }
    over = f"{', '.join(transports) or 'unknown'}{' (UCX), and without it' if direct else ''}"
    summary = f"{rate:.1f} GB/s between two processes ({_SIZE >> 20} MiB), over {over}"
    if settings.planes.tensors.secret is None:
        summary += "; no secret is set, so this machine only"
    if transports and _NETWORK.issuperset(transports):
        advice = (
            "traffic on this machine takes the network stack instead of shared memory: look for UCX_TLS and "
            "UCX_MM_ERROR_HANDLING in the environment, and in containers allow --ipc=host or more --shm-size"
        )
        return Outcome(status="problem", summary=summary, advice=advice, facts=facts)
    return Outcome(status="ok", summary=summary, facts=facts)


def _measure(config: UcpDataPlaneConfig) -> tuple[DataPlaneStatistics, float, DataPlaneStatistics]:
    """What a data plane says after it fetched, the seconds of its best fetch, and what one says that used UCX."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    peer = context.Process(target=_serve, args=(theirs, config), daemon=True)
    peer.start()
    try:
        if not ours.poll(_START_SECONDS):
            raise TimeoutError("the other process did not start")
        reference: TensorReference = ours.recv()
        statistics, seconds = asyncio.run(_fetch(config, reference))
        through_ucx, _ = asyncio.run(_fetch(replace(config, direct_copies=False), reference))
        return statistics, seconds, through_ucx
    finally:
        ours.close()  # it ends when its end of the pipe does
        peer.join(_START_SECONDS)


def _serve(pipe: Connection, config: UcpDataPlaneConfig) -> None:
    asyncio.run(_serve_until_closed(pipe, config))


async def _serve_until_closed(pipe: Connection, config: UcpDataPlaneConfig) -> None:
    plane = UcpDataPlane(config)
    await plane.open()
    try:
        pipe.send(plane.put(np.ones(_SIZE, np.uint8), inline=False))
        await asyncio.to_thread(_wait_for_end, pipe)
    finally:
        await plane.close()


def _wait_for_end(pipe: Connection) -> None:
    try:
        pipe.recv()
    except (EOFError, OSError):
        return


async def _fetch(config: UcpDataPlaneConfig, reference: TensorReference) -> tuple[DataPlaneStatistics, float]:
    plane = UcpDataPlane(config)
    await plane.open()
    try:
        seconds = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            tensor = await plane.get(reference)
            seconds.append(time.perf_counter() - began)
            del tensor  # its buffer serves the next fetch
        return plane.statistics(), min(seconds)
    finally:
        await plane.close()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # noqa: PERF203 (four names)
            continue
    return found
