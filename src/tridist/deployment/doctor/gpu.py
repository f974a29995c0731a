"""The check of GPUs: the driver, and cupy."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import numpy as np

from tridist.deployment.doctor.checks import CheckSettings
from tridist.deployment.doctor.report import Outcome
from tridist.errors import MissingExtraError
from tridist.icp.devices import load_cupy

_QUERY_SECONDS = 30
_FIELDS = ("name", "memory.total", "driver_version")


def check_gpu(_: CheckSettings) -> Outcome:
    """Which GPUs the driver knows, and whether cupy can compute on each."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Outcome(status="absent", summary="no NVIDIA driver: everything runs on the CPU")
    query = [tool, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True, timeout=_QUERY_SECONDS, check=False)
    gpus = [line.strip() for line in asked.stdout.splitlines() if line.strip()]
    if asked.returncode or not gpus:
        said = (asked.stderr or asked.stdout).strip()
        advice = "check the driver (in a container: --gpus all)"
        return Outcome(status="problem", summary=f"nvidia-smi: {said}", advice=advice)
    facts = {"gpus": [dict(zip(_FIELDS, gpu.split(", "), strict=False)) for gpu in gpus]}
    return _try_cupy("; ".join(gpus), facts)


def _try_cupy(summary: str, facts: dict[str, Any]) -> Outcome:
    try:
        cupy = load_cupy()
    except MissingExtraError as error:
        return Outcome(status="problem", summary=f"{summary}; cupy is not installed", advice=error.message, facts=facts)
    try:
        for number in range(cupy.cuda.runtime.getDeviceCount()):
            with cupy.cuda.Device(number):
                total = int(cupy.asnumpy(cupy.arange(1000, dtype=np.int64).sum()))
            if total != 499500:  # noqa: PLR2004 (the sum of the numbers below 1000)
                return Outcome(status="problem", summary=f"GPU {number} computes wrongly", facts=facts)
    except Exception as error:  # noqa: BLE001 (cupy's errors come from CUDA, its compiler and its loader)
        advice = "install the extra for the driver's CUDA: tridist[gpu-cuda12] or tridist[gpu-cuda13]"
        return Outcome(status="problem", summary=f"{summary}; cupy: {error}", advice=advice, facts=facts)
    return Outcome(status="ok", summary=summary, facts={**facts, "cupy": cupy.__version__})
