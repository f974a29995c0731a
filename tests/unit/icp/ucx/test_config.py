from __future__ import annotations

import math
import os
import sys
from dataclasses import replace

import pytest

from tridist.errors import ConfigurationError, MissingExtraError
from tridist.icp.ucx import UcpDataPlane, UcpDataPlaneConfig, environment
from tridist.icp.ucx.config import SECRET_VARIABLE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("host", ""),
        ("port", -1),
        ("port", 65536),
        ("lease", 0.0),
        ("lease", math.inf),
        ("connect_timeout", -1.0),
        ("request_timeout", math.nan),
        ("minimum_rate", 0.0),
        ("inline_threshold", -1),
        ("close_grace", -0.1),
        ("receive_pool", -1),
        ("max_tensor_size", 0),
        ("max_peers", 0),
        ("secret", ""),
    ],
)
def test_values_out_of_range_are_refused_by_name(field, value):
    with pytest.raises(ConfigurationError) as raised:
        UcpDataPlaneConfig(**{field: value})
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("n1", False)],  # noqa: S104
)
def test_loopback_is_recognised(host, loopback):
    assert UcpDataPlaneConfig(host=host, secret="s").loopback is loopback  # noqa: S106


def test_a_wildcard_is_never_advertised():
    everywhere = UcpDataPlaneConfig(host="0.0.0.0", secret="s")  # noqa: S104, S106
    assert everywhere.advertised() not in {"0.0.0.0", ""}  # noqa: S104
    assert replace(everywhere, advertised_host="node7").advertised() == "node7"
    assert replace(everywhere, host="10.0.0.7").advertised() == "10.0.0.7"


@pytest.mark.parametrize(
    "options",
    [{"host": "0.0.0.0"}, {"host": "::"}, {"host": "10.0.0.7"}, {"host": "node7"}, {"advertised_host": "node7"}],  # noqa: S104
)
@pytest.mark.parametrize("environment_has", [None, ""])
def test_other_machines_are_served_with_a_secret_only(monkeypatch, options, environment_has):
    if environment_has is None:
        monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(SECRET_VARIABLE, environment_has)
    with pytest.raises(ConfigurationError) as raised:
        UcpDataPlaneConfig(**options)
    assert raised.value.field == "secret"
    assert SECRET_VARIABLE in raised.value.reason
    monkeypatch.setenv(SECRET_VARIABLE, given := "something")
    assert UcpDataPlaneConfig(**options).secret == given


@pytest.mark.parametrize("options", [{}, {"host": "::1"}, {"host": "localhost"}, {"advertised_host": "127.0.0.1"}])
def test_this_machine_alone_needs_no_secret(monkeypatch, options):
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    assert UcpDataPlaneConfig(**options).secret is None


def test_the_secret_comes_from_the_environment_and_is_never_shown(monkeypatch):
    given = "from the environment"
    monkeypatch.setenv(SECRET_VARIABLE, given)
    assert UcpDataPlaneConfig().secret == given
    assert UcpDataPlaneConfig(secret=given[:5]).secret == given[:5]
    assert UcpDataPlaneConfig(secret=None).secret is None
    assert "environment" not in repr(UcpDataPlaneConfig())
    for nothing in ("", None):
        if nothing is None:
            monkeypatch.delenv(SECRET_VARIABLE)
        else:
            monkeypatch.setenv(SECRET_VARIABLE, nothing)
        assert UcpDataPlaneConfig().secret is None


def test_the_time_for_a_transfer_grows_with_its_size():
    config = UcpDataPlaneConfig(request_timeout=2.0, minimum_rate=1000.0)
    assert config.transfer_timeout(0) == 2.0
    assert config.transfer_timeout(5000) == 7.0


def test_the_users_settings_win(monkeypatch):
    monkeypatch.delenv("UCX_TLS", raising=False)
    monkeypatch.setenv("UCX_KEEPALIVE_INTERVAL", "7s")
    options = environment.options(loopback=True)
    assert "KEEPALIVE_INTERVAL" not in options
    assert options["MM_ERROR_HANDLING"] == options["CMA_MEMORY_INVALIDATE"] == "y"
    assert options["NET_DEVICES"] == "lo"
    assert "NET_DEVICES" not in environment.options(loopback=False)


def test_loading_leaves_the_environment_as_it_was(monkeypatch):
    monkeypatch.setenv("UCX_RNDV_THRESH", "4242")
    before = dict(os.environ)
    environment.load_ucxx()
    assert dict(os.environ) == before


async def test_a_missing_ucxx_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ucxx", None)
    with pytest.raises(MissingExtraError) as raised:
        await UcpDataPlane().open()
    assert raised.value.extra == "ucx"
