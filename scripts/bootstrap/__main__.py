"""`python3 -m scripts.bootstrap`: refuse an old Python in plain words, then do the work."""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 - runs before anything is installed, so nothing else has checked it
    sys.exit(
        "tridist needs Python 3.10 or newer, and this is Python {}.{}. "
        "Name another one: make PYTHON=python3.11 ...".format(*sys.version_info[:2])
    )

from scripts.bootstrap.main import main

sys.exit(main())
