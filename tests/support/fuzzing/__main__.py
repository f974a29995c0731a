"""The program: ``python -m support.fuzzing CASES SEED``."""

from __future__ import annotations

import asyncio
import json
import sys

from support.fuzzing.feeding import Findings, feed, fuzz, limit_memory
from support.fuzzing.readers import READERS, jetstream
from support.fuzzing.samples import SAMPLES

_SHOWN = 20


async def _main(cases: int, seed: int) -> None:
    jetstream()
    for reader in READERS:
        for sample in SAMPLES[reader.kind]:  # what is loaded only once is no case's
            feed(reader, sample, Findings())
    limit_memory()
    findings = fuzz(cases, seed)
    summary = {"cases": findings.cases, "taken": findings.taken, "refused": findings.refused}
    sys.stdout.write(json.dumps({**summary, "violations": len(findings.broken), "first": findings.broken[:_SHOWN]}))


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
