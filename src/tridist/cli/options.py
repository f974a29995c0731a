"""Options that several subcommands have."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from tridist.icp.nats.config import NatsConfig, TlsConfig
from tridist.icp.planes import PlanesConfig

Function = Callable[..., Any]
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NAMED = ("user", "password", "token", "connect_timeout", "inbox_prefix")
"""Options that are fields of `NatsConfig` by the same name."""

_OPTIONS = (
    click.option("--url", envvar="TRIDIST_URL", help="NATS server; several of a cluster separated by commas."),
    click.option("--namespace", envvar="TRIDIST_NAMESPACE", help="Namespace of the deployment.  [default: default]"),
    click.option("--user", envvar="TRIDIST_USER", help="User, with a password."),
    click.option("--password", envvar="TRIDIST_PASSWORD", help="Better in TRIDIST_PASSWORD: others see arguments."),
    click.option("--token", envvar="TRIDIST_TOKEN", help="Token; better in TRIDIST_TOKEN."),
    click.option(
        "--connect-timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds to try.  [default: 5]"
    ),
    click.option("--credentials", type=FILE, help="A .creds file."),
    click.option("--nkey", type=FILE, help="A file with an nkey seed."),
    click.option("--tls-ca", type=FILE, help="Certificates to trust."),
    click.option("--tls-cert", type=FILE, help="Our own certificate."),
    click.option("--tls-key", type=FILE, help="The key to it."),
    click.option("--inbox-prefix", envvar="TRIDIST_INBOX_PREFIX", help="Where the user may listen.  [default: _INBOX]"),
    click.option(
        "--own-id",
        envvar="TRIDIST_COMPONENT_ID",
        help="Our component id, where rights hang on it.  [default: a new one]",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What the options say about the server.

    Attributes:
        url: the server, or None.
        url_typed: it was given as an option, not by the environment.
        namespace: the namespace, or None.
        namespace_typed: as for the URL.
        component_id: this component's id, or None.
        nats: the fields of `NatsConfig` that were given.
    """

    url: str | None
    url_typed: bool
    namespace: str | None
    namespace_typed: bool
    component_id: str | None
    nats: dict[str, Any]

    def planes(self) -> PlanesConfig:
        """The planes that the options describe."""
        given = {"namespace": self.namespace, "component_id": self.component_id}
        named = {name: value for name, value in given.items() if value is not None}
        return PlanesConfig.of(self.url, nats=NatsConfig(**self.nats), **named)

    def over(self, planes: PlanesConfig) -> PlanesConfig:
        """Planes of a file, with what was typed over them."""
        changed = replace(planes, nats=replace(planes.nats, **self.nats)) if self.nats else planes
        if self.namespace is not None and self.namespace_typed:
            return replace(changed, namespace=self.namespace)
        return changed


def connection_options(function: Function) -> Function:
    """Add the options of a connection; the function gets them as ``connection``."""

    @functools.wraps(function)
    def with_connection(**arguments: Any) -> Any:
        named = {option: arguments.pop(option) for option in _NAMED}
        files = {"credentials_file": arguments.pop("credentials"), "nkey_seed_file": arguments.pop("nkey")}
        tls = {name: arguments.pop(name) for name in ("tls_ca", "tls_cert", "tls_key")}
        nats = {name: value for name, value in (named | files).items() if value is not None}
        if any(tls.values()):
            nats["tls"] = TlsConfig(ca_file=tls["tls_ca"], certificate_file=tls["tls_cert"], key_file=tls["tls_key"])
        connection = Connection(
            url_typed=_typed("url"),
            url=arguments.pop("url"),
            namespace_typed=_typed("namespace"),
            namespace=arguments.pop("namespace"),
            component_id=arguments.pop("own_id"),
            nats=nats,
        )
        return function(connection=connection, **arguments)

    for option in reversed(_OPTIONS):
        with_connection = option(with_connection)
    return with_connection


def json_option(function: Function) -> Function:
    """Add ``--json``; the function gets it as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(function)


def shown_url(url: str) -> str:
    """A URL, or several, without credentials."""
    return NatsConfig(urls=tuple(url.split(","))).address


def _typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE
