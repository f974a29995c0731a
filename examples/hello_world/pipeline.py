"""The aggregator: an operator that answers by asking two others."""

from __future__ import annotations

import tridist


class Aggregator(tridist.Operator):
    """Sends its input to the encoder, and the encoder's output to the decoder.

    It takes references: the tensors' bytes go from the client to the encoder, from the encoder to the decoder and from
    the decoder to the client, and never visit this process.
    """

    receives = "references"

    async def execute(self, request: tridist.OperatorRequest) -> dict[str, tridist.RemoteTensor]:
        """``input`` (INT64, any length) to ``output``, which is the same again."""
        encoded = await self.remote("encoder").post_request({"input": request["input"]}, resolve=False)
        decoded = await self.remote("decoder").post_request({"encoded": encoded["encoded"]}, resolve=False)
        return {"output": decoded["decoded"]}
