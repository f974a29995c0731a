"""container/build_local.sh with a debootstrap and a buildah that record what they are given."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="build_local.sh runs as root only")

_DEBOOTSTRAP = r"""#!/usr/bin/env bash
echo "debootstrap $*" >>"$CALLS"
mkdir -p "$3/etc" "$3/var/cache/apt/archives" "$3/var/lib/apt/lists"
cp /etc/hostname "$3/etc/" 2>/dev/null || echo machine >"$3/etc/hostname"
"""
# `inspect` fails: there is no base yet. A build keeps its secrets for the test to read.
_BUILDAH = r"""#!/usr/bin/env bash
echo "buildah $*" >>"$CALLS"
case $1 in
    inspect) exit 1 ;;
    from) echo "container-of-$2" ;;
    add) ls -A "$4/etc" >"$KEEP/etc" 2>/dev/null || ls -A "$3/etc" >"$KEEP/etc" ;;
    build) for word; do case $word in id=*) id=${word%%,*}; cp "${word#*src=}" "$KEEP/${id#id=}" ;; esac; done ;;
    run) [[ $* != *"test ! -e /run/secrets" || -z ${LEAK-} ]] ;;
esac
"""


@pytest.fixture
def local(tmp_path):
    """Runs the script; gives the result and the calls it made."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in (("debootstrap", _DEBOOTSTRAP), ("buildah", _BUILDAH)):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    calls = tmp_path / "calls"

    def run(*arguments, **env):
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "SSL_", "REQUESTS_"))
        }
        result = subprocess.run(
            [str(ROOT / "container" / "build_local.sh"), "--work", str(tmp_path / "work"), *arguments],
            env={
                **clean,
                "PATH": f"{bin_}:{os.environ['PATH']}",
                "CALLS": str(calls),
                "KEEP": str(tmp_path),
                "PIP_CONFIG_FILE": os.devnull,
                **env,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return result, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_the_base_is_made_and_built_upon(local, tmp_path):
    result, calls = local("--tag", "localhost/x:1", "--mirror", "http://mirror.example/debian")
    assert result.returncode == 0, result.stderr
    rootfs = tmp_path / "work" / "rootfs"
    assert f"debootstrap --variant=minbase bookworm {rootfs} http://mirror.example/debian" in calls
    assert any(
        call.startswith("buildah commit") and call.endswith(" localhost/tridist-base:bookworm") for call in calls
    )
    build = next(call for call in calls if call.startswith("buildah build "))
    assert "--build-arg FRAMEWORK=STANDARD --build-arg BASE_IMAGE=localhost/tridist-base:bookworm" in build
    assert f"--tag localhost/x:1 {ROOT}" in build
    assert not any("hello_world" in call for call in calls)


def test_the_base_carries_no_name_of_this_machine(local, tmp_path):
    local()
    assert (tmp_path / "etc").read_text() == ""
    assert not (tmp_path / "work" / "rootfs").exists()


def test_hello_runs_hello_world_inside(local):
    _, calls = local("--hello")
    assert calls[-3].endswith(" -- python examples/hello_world/main.py")


def test_pips_settings_become_secrets_without_paths_of_this_machine(local, tmp_path):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("certificates")
    local(
        PIP_INDEX_URL="https://packages.example/simple",
        PIP_EXTRA_INDEX_URL="file:///srv/wheels https://more.example/simple",
        PIP_FIND_LINKS="/srv/wheels",
        PIP_CERT=str(bundle),
    )
    assert (tmp_path / "pip_conf").read_text().splitlines() == [
        "[global]",
        "index-url = https://packages.example/simple",
        "extra-index-url = https://more.example/simple",
    ]
    assert (tmp_path / "ca_bundle").read_text() == "certificates"


def test_an_image_that_holds_the_secrets_is_refused(local):
    result, _ = local("--hello", LEAK="1")
    assert result.returncode == 2
    assert "secrets are in the image" in result.stderr
    assert "Hello world" not in result.stdout


def test_missing_tools_are_named_with_the_command_that_brings_them(local, tmp_path):
    (tmp_path / "bin" / "buildah").unlink()
    (tmp_path / "bin" / "debootstrap").unlink()
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "dirname", "env"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    result, calls = local(PATH=str(tools))
    assert (result.returncode, calls) == (2, [])
    assert "apt-get install -y --no-install-recommends buildah debootstrap" in result.stderr
