"""`python3 -m scripts.bootstrap`: refuse a Python that cannot work in plain words, then do the work.

Below 3.11 there is no `ucxx`; from 3.13 on there is no numpy 1.x, which Triton's wheel asks for. Any Python 3 has to be
able to read the code up to the check.
"""

import sys

if not (3, 11) <= sys.version_info[:2] < (3, 13):
    sys.exit(
        "tridist: the pinned packages need Python 3.11 or 3.12, and this is Python {}.{}. "
        "Name another one: make PYTHON=python3.11 ...".format(*sys.version_info[:2])
    )

from scripts.bootstrap.main import main

sys.exit(main())
