"""The Triton core inside this process, behind one interface with two providers.

:func:`load_provider` gives the official ``tritonserver`` package where it is installed for real (Triton's
containers), else this package's own binding to the C API of the core that the ``nvidia-pytriton`` wheel ships. Both
have the official package's names::

    triton = load_provider()
    server = triton.Server(model_repository=path, model_control_mode=triton.ModelControlMode.EXPLICIT)
    await asyncio.to_thread(server.start)
    model = await asyncio.to_thread(server.load_model, "encoder")
    async for response in model.async_infer(inputs={"x": array}):
        response.outputs["y"]

Nothing of Triton is loaded until then.
"""

from __future__ import annotations

from tridist.triton.provider import Provider, load_provider

__all__ = ["Provider", "load_provider"]
