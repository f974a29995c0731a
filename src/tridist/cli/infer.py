"""``tridist infer``: send one request."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.markup import escape

from tridist.cli.console import output, print_json, printable
from tridist.cli.inputs import once, parse_input, parse_parameter
from tridist.cli.options import Connection, connection_options, json_option
from tridist.cli.outputs import preview, response_as_json, save
from tridist.cli.running import command_body, connecting, run_async
from tridist.client import Client, Response
from tridist.errors import ConfigurationError
from tridist.icp.data_types import DataType
from tridist.icp.planes import PlanesConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    operator: str
    inputs: dict[str, Any]
    options: dict[str, Any]
    stream: bool
    output_directory: Path | None
    as_json: bool


@click.command("infer")
@click.argument("operator", metavar="OPERATOR[/VERSION]")
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE[:DTYPE]", help="An input; see below.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the request.")
@click.option("--requested-output", "requested", multiple=True, metavar="NAME", help="Only these outputs.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=60.0, show_default=True, help="Seconds."
)
@click.option("--priority", type=int, default=0, show_default=True, help="Higher is more urgent.")
@click.option("--worker", "component_id", help="Only this worker, by its component id.")
@click.option("--stream", is_flag=True, help="Show answers as they come, from an operator that gives many.")
@click.option("--output-dir", type=click.Path(file_okay=False, path_type=Path), help="Save the outputs here.")
@connection_options
@json_option
@command_body
def command(
    *,
    operator: str,
    inputs: tuple[str, ...],
    parameters: tuple[str, ...],
    requested: tuple[str, ...],
    timeout: float,
    priority: int,
    component_id: str | None,
    stream: bool,
    output_dir: Path | None,
    connection: Connection,
    as_json: bool,
) -> int | None:
    """Send one request to OPERATOR, and show the answer.

    \b
    VALUE is one of
      @image.npy, image.npy   a numpy file
      @batch.json             a file with JSON
      [[1, 2], [3, 4]]        JSON: a number, a text, a list
      anything else           a text, sent as BYTES
    Whole numbers are sent as INT64, others as FP64, unless :DTYPE names another type (FP32, UINT8, BYTES, ...).

    \b
    Examples:
      tridist infer double --input 'x=[1, 2, 3]:FP32'
      tridist infer encoder/2 --input image=@cat.npy --output-dir out
      tridist infer chat --input 'prompt=Hello there' --parameter temperature=0.2 --stream
      tridist infer double --input x=21 --json | jq '.outputs[0].data'
    """  # noqa: D301 (the character that tells click to keep the lines)
    name, slash, version = operator.partition("/")
    if slash and not version.isdecimal():
        raise click.BadParameter(f"{version!r} is no version; give a whole number", param_hint="OPERATOR")
    call = _Call(
        operator=name,
        inputs=once("--input", map(parse_input, inputs)),
        options={
            "version": int(version) if slash else 1,
            "parameters": once("--parameter", map(parse_parameter, parameters)),
            "requested_outputs": requested,
            "timeout": timeout,
            "priority": priority,
            "component_id": component_id,
        },
        stream=stream,
        output_directory=output_dir,
        as_json=as_json,
    )
    run_async(lambda: _infer(call, connection.planes()))
    return None


async def _infer(call: _Call, planes: PlanesConfig) -> None:
    if call.output_directory is not None:
        try:
            await asyncio.to_thread(call.output_directory.mkdir, parents=True, exist_ok=True)
        except OSError as error:
            reason = f"cannot be made: {error.strerror}"
            raise ConfigurationError("--output-dir", str(call.output_directory), reason) from error
    client = Client(planes)
    with connecting():
        await client.open()
    try:
        await _post(call, client)
    finally:
        await client.close()


async def _post(call: _Call, client: Client) -> None:
    pending = client.post_request(call.operator, call.inputs, **call.options)
    if not call.stream:
        await _show(call, await pending, None)
        return
    async with aclosing(pending):
        async for response in pending:
            await _show(call, response, response.sequence)


async def _show(call: _Call, response: Response, number: int | None) -> None:
    folder, saved = call.output_directory, {}
    if folder is not None:
        for name, array in response.outputs.items():
            saved[name] = await asyncio.to_thread(save, folder, name, np.asarray(array), number)
    if call.as_json:
        files = {"files": {name: [str(path) for path in paths] for name, paths in saved.items()}} if saved else {}
        print_json({**response_as_json(response), **files}, line=number is not None)
    else:
        _print(response, saved, number)


def _print(response: Response, saved: dict[str, list[Path]], number: int | None) -> None:
    console = output()
    if number is not None:
        console.print(f"[dim]answer {number}[/]")
    for name, value in response.outputs.items():
        array = np.asarray(value)
        data_type = DataType.from_numpy(array.dtype).value
        console.print(f"[bold]{escape(printable(name))}[/] [dim]{data_type} {list(array.shape)}[/]")
        if name in saved:
            console.print("\n".join(f"  {path}" for path in saved[name]), markup=False)
        else:
            console.print(preview(array), markup=False)
    for key, parameter in response.parameters.items():
        console.print(f"[dim]{escape(printable(key))}[/] = {escape(printable(str(parameter)))}")
