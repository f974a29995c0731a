"""The command's entry point, and its subcommands, which are imported when they are used."""

from __future__ import annotations

import importlib
from typing import ClassVar

import click
from typing_extensions import override

from tridist import __version__

_EPILOG = """\b
Exit codes:
  0    done; 'up' and 'worker': drained after SIGINT or SIGTERM
  1    the operation failed
  2    wrong usage, or a file that cannot be used
  3    no connection to the server
  4    the deadline passed
  130  interrupted (SIGINT); 143 by SIGTERM

\b
Environment:
  TRIDIST_URL, TRIDIST_NAMESPACE, TRIDIST_USER, TRIDIST_PASSWORD, TRIDIST_TOKEN
  NO_COLOR     plain text on a terminal too

\b
Examples:
  tridist up deployment.yaml
  tridist infer encoder --input x=@image.npy --output-dir out
  tridist operators --watch 2
  tridist dlq list
  tridist doctor
"""


class _Commands(click.Group):
    """Imports a subcommand when it is asked for: ``--help`` and completion should not wait for numpy."""

    modules: ClassVar[dict[str, str]] = {
        "up": "Run a deployment file until Ctrl-C.",
        "worker": "Run one worker.",
        "infer": "Send one request and show the answer.",
        "operators": "Show what is served, and by whom.",
        "dlq": "Look after requests that were given up.",
        "doctor": "Check what tridist needs on this machine.",
    }

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.modules)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.modules:
            return None
        command: click.Command = importlib.import_module(f"tridist.cli.{cmd_name}").command
        return command

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self.modules.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="tridist")
def main() -> None:
    """Distributed workers for AI inference: requests over NATS, tensors over UCX, models in Triton."""
