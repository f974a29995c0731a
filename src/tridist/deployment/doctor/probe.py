"""One check in a process of its own: ``python -m tridist.deployment.doctor.probe CHECK``.

Reads pickled `CheckSettings` from standard input and writes the outcome as JSON to standard output. Libraries that
print find standard error in its place.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import sys
import traceback
from dataclasses import asdict

from tridist.deployment.doctor.checks import CheckSettings, find_check
from tridist.deployment.doctor.report import Outcome
from tridist.errors import MissingExtraError, TridistError


def main() -> None:
    """Run the check that the arguments name."""
    faulthandler.enable()  # a crash says where
    answer = os.dup(1)
    os.dup2(2, 1)
    settings: CheckSettings = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 (from our parent, over its pipe)
    check = find_check(sys.argv[1])
    try:
        outcome = check.load()(settings)
    except MissingExtraError as error:
        missing = f"{error.feature}: not installed"
        outcome = Outcome(status="problem" if check.required else "absent", summary=missing, advice=error.message)
    except TridistError as error:
        outcome = Outcome(status="problem", summary=error.message, facts={"code": error.code})
    except Exception as error:  # noqa: BLE001 (whatever a library raises is what the check is after)
        traceback.print_exc()
        outcome = Outcome(status="problem", summary=f"{type(error).__name__}: {error}")
    with os.fdopen(answer, "w") as stream:
        json.dump(asdict(outcome), stream)


if __name__ == "__main__":
    main()
