"""An operator that runs somewhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tridist.client.caller import Caller
from tridist.client.pending import PendingResponse
from tridist.icp.subjects import check_name, check_version


class RemoteOperator:
    """One operator version, called by name.

    Args:
        name: the operator.
        caller: posts the requests.
        version: its version.
        component_id: post to this worker alone.

    Raises:
        InvalidNameError: name or version cannot be an operator's.
    """

    def __init__(self, name: str, caller: Caller, *, version: int = 1, component_id: str | None = None) -> None:
        self.name = check_name("operator", name)
        self.version = check_version(version)
        self.component_id = component_id
        self._caller = caller

    def post_request(self, inputs: Mapping[str, Any] | None = None, **options: Any) -> PendingResponse:
        """As `Caller.post_request`, without the operator's name and version."""
        options.setdefault("component_id", self.component_id)
        return self._caller.post_request(self.name, inputs, version=self.version, **options)

    def __repr__(self) -> str:
        return f"RemoteOperator({self.name!r}, version={self.version})"
