"""Feeding mutated bytes to readers, and holding these to the rules."""

from __future__ import annotations

import base64
import random
import resource
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from support.fuzzing.mutations import mutate
from support.fuzzing.readers import READERS, Reader
from support.fuzzing.samples import SAMPLES

MEMORY = 256 << 20
SECONDS = 5.0


@dataclass
class Findings:
    """What came of it.

    Attributes:
        cases: how many there were.
        taken: by kind, how many were read.
        refused: by kind, how many were refused as documented.
        broken: what broke a rule, with the bytes.
    """

    cases: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[dict[str, str]] = field(default_factory=list)


def fuzz(cases: int, seed: int) -> Findings:
    """Feed every reader; a seed gives nearly the same cases again, for samples hold new ids and the time."""
    rng = random.Random(f"fuzz/{seed}")
    findings = Findings()
    shares = [reader.share for reader in READERS]
    for _ in range(cases):
        (reader,) = rng.choices(READERS, shares)
        pool = SAMPLES[reader.kind]
        if rng.random() < 0.05:
            pool = SAMPLES[rng.choice(list(SAMPLES))]
        feed(reader, mutate(rng, rng.choice(pool), pool), findings)
    return findings


def feed(reader: Reader, data: bytes, findings: Findings) -> None:
    """Let one reader read one case, and note what came of it."""
    findings.cases += 1
    began = time.process_time()
    why = None
    try:
        reader.read(data)
        findings.taken[reader.kind] += 1
    except reader.errors:
        findings.refused[reader.kind] += 1
    except Exception as error:  # noqa: BLE001 (that is the finding)
        why = f"{type(error).__name__}: {error}"[:300]
    if (seconds := time.process_time() - began) > SECONDS:
        why = f"took {seconds:.1f} s of the processor"
    if why is not None:
        findings.broken.append({"reader": reader.kind, "why": why, "bytes": base64.b64encode(data[:4000]).decode()})


def limit_memory() -> None:
    """Let this process have `MEMORY` more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
