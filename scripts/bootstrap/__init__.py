"""Prepare a checkout: system packages, `.venv`, and the pinned install. Standard library only."""
