"""What ``import tridist`` offers."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import tridist


def test_everything_that_is_promised_is_there():
    assert len(set(tridist.__all__)) == len(tridist.__all__)
    assert [name for name in tridist.__all__ if not hasattr(tridist, name)] == []


def test_planes_can_be_configured_with_what_tridist_exports():
    classes = {
        "nats": "NatsConfig",
        "streams": "StreamConfig",
        "delivery": "DeliveryConfig",
        "tensors": "UcpDataPlaneConfig",
    }
    planes = tridist.PlanesConfig(url="nats://127.0.0.1:4222")
    for field, name in classes.items():
        assert name in tridist.__all__
        assert type(getattr(planes, field)) is getattr(tridist, name)
    own = {field.name for field in dataclasses.fields(planes) if dataclasses.is_dataclass(getattr(planes, field.name))}
    assert own == set(classes)
    assert tridist.NatsConfig(tls=tridist.TlsConfig(hostname="nats.example")).tls.hostname == "nats.example"


def test_importing_it_needs_none_of_the_optional_packages():
    code = (
        "import sys\n"
        "for name in ('ucxx', 'cupy', 'tritonserver', 'prometheus_client'):\n"
        "    sys.modules[name] = None  # what is not installed\n"
        "import tridist\n"
        "tridist.UcpDataPlaneConfig()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
