"""The ``tridist`` command: parse, dispatch, print."""
