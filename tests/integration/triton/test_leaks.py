"""Memory stays flat: nothing of a request outlives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.models import Source, identity, write_model

MIB = 1 << 20
TESTS = Path(__file__).parents[2]

BATCHED = identity(dims="[-1]", extra="dynamic_batching { max_queue_delay_microseconds: 100 }")
MODELS = {
    "batched": Source(BATCHED.config.replace("max_batch_size: 0", "max_batch_size: 64"), BATCHED.code),
    "single": identity(),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "warm_up", "count"),
    # One kibibyte kept of each small request would be 20 MiB. One large output is 16, a refused input a quarter of one.
    [("batched", "small", 4_000, 20_000), ("single", "large", 20, 200), ("single", "refused", 200, 2_000)],
)
def test_memory_stays_flat(tmp_path, name, kind, warm_up, count):
    write_model(tmp_path, name, MODELS[name])
    command = [sys.executable, "-m", "support.triton_memory", str(tmp_path), name, kind, str(warm_up), str(count)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured.pop("grown") < 8 * MIB
    assert measured == {"exchanges": 0, "outputs": 0, "exported": 0}
