"""docs/deployment-file.md lists every key that a deployment file may have, with the default that it has in the code."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest
import yaml

from tridist.deployment.config import DeploymentConfig, RestartPolicy, WorkerReplicas
from tridist.deployment.file import DeploymentFileError, parse_deployment_file
from tridist.deployment.limits import WorkerLimits
from tridist.deployment.nats_server import NatsServerConfig
from tridist.icp.nats.config import DeliveryConfig, NatsConfig, StreamConfig, TlsConfig
from tridist.icp.planes import PlanesConfig
from tridist.icp.ucx import UcpDataPlaneConfig
from tridist.instrumentation import LogConfig
from tridist.worker import OperatorConfig, WorkerConfig

PAGE = (Path(__file__).parents[2] / "docs" / "deployment-file.md").read_text()
SECTIONS = {
    "The file": (DeploymentConfig, PlanesConfig),
    "workers": (WorkerReplicas, WorkerConfig),
    "operators": (OperatorConfig,),
    "restart": (RestartPolicy,),
    "limits": (WorkerLimits,),
    "nats": (NatsConfig,),
    "nats.tls": (TlsConfig,),
    "nats_server": (NatsServerConfig,),
    "streams": (StreamConfig,),
    "delivery": (DeliveryConfig,),
    "tensors": (UcpDataPlaneConfig,),
    "logs": (LogConfig,),
}
NOT_IN_FILES = {
    ("The file", "planes"), ("The file", "component_id"), ("workers", "worker"), ("workers", "planes"),
    ("nats", "urls"), ("nats", "namespace"), ("logs", "component"),
}  # fmt: skip
OTHER_DEFAULTS = {("The file", "url"), ("The file", "python_path"), ("workers", "name")}
"""Where a file has another default than the class."""


def rows(section: str) -> dict[str, str]:
    """Of each key in a section's table, the default that it names."""
    _, _, rest = PAGE.partition(f"\n## {section}\n")
    found = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| .+ \|$", rest.partition("\n## ")[0], re.MULTILINE)
    assert len(dict(found)) == len(found), f"{section} lists a key twice"
    return dict(found)


def fields_of(section: str):
    own = {field.name: field for cls in reversed(SECTIONS[section]) for field in fields(cls)}
    return {name: field for name, field in own.items() if (section, name) not in NOT_IN_FILES}


def test_every_section_of_the_page_is_one_of_the_file():
    assert re.findall(r"^## (.+)$", PAGE, re.MULTILINE) == list(SECTIONS)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_lists_every_key_with_its_default(section):
    listed = rows(section)
    assert set(listed) == set(fields_of(section))
    for name, field in fields_of(section).items():
        if field.default_factory is not MISSING or (section, name) in OTHER_DEFAULTS:
            continue
        if field.default is MISSING:
            assert listed[name] == "required", name
        else:
            said = None if listed[name] == "none" else yaml.safe_load(listed[name].strip("`"))
            assert (tuple(said) if isinstance(said, list) else said) == field.default, name


@pytest.mark.parametrize(("section", "key"), sorted(NOT_IN_FILES))
def test_what_the_page_leaves_out_is_refused(section, key, tmp_path):
    outer = {"The file": f"{key}: x\n", "workers": "", "nats": f"nats: {{{key}: x}}\n", "logs": f"logs: {{{key}: x}}\n"}
    inner = f", {key}: x" if section == "workers" else ""
    text = f'{outer[section]}workers: [{{name: w, operators: [{{name: o, implementation: "m:o"}}]{inner}}}]'
    with pytest.raises(DeploymentFileError, match="is not a key that is known here"):
        parse_deployment_file(text.encode(), tmp_path / "file.yaml", {})


def test_the_example_of_the_page_is_a_deployment(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    config = parse_deployment_file(example.encode(), tmp_path / "file.yaml", {})
    assert config.calls == {"models": (), "pipeline": ("models",)}
