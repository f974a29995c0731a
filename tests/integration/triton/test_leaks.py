"""Memory stays flat: nothing of a request outlives it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.models import Source, identity, write_model
from tridist.triton.exchange import live_exchanges

MIB = 1 << 20
TESTS = Path(__file__).parents[2]

BATCHED = identity(dims="[-1]", extra="dynamic_batching { max_queue_delay_microseconds: 100 }")
MODELS = {
    "batched": Source(BATCHED.config.replace("max_batch_size: 0", "max_batch_size: 64"), BATCHED.code),
    "single": identity(),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "warm_up", "count", "limit"),
    # One kibibyte kept of each small request would be 20 MiB. One large output is 16; the pool of output buffers may
    # come to hold one or two more than after the warm-up, and 200 kept ones would be 3 GiB.
    [("batched", "small", 4_000, 20_000, 8 * MIB), ("single", "large", 20, 200, 40 * MIB)],
)
def test_memory_stays_flat(tmp_path, name, kind, warm_up, count, limit):
    write_model(tmp_path, name, MODELS[name])
    command = [sys.executable, "-m", "support.triton_memory", str(tmp_path), name, kind, str(warm_up), str(count)]
    done = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured.pop("grown") < limit
    assert measured == {"exchanges": 0, "outputs": 0, "exported": 0}


def test_errors_leave_nothing_behind(start_server):
    model = start_server({"single": identity()}).model("single")
    for _ in range(200):
        with pytest.raises(Exception, match="unexpected"):
            model.infer(inputs={"z": np.ones(1 << 16, dtype=np.float32)})
    assert live_exchanges() == 0
