import shlex

import pytest


def _build(root, *, engine="docker", framework="STANDARD", base="debian:bookworm-slim", before=(), options=(), tags=()):
    return [
        engine,
        "build",
        "--file",
        f"{root}/container/Dockerfile",
        *before,
        "--build-arg",
        f"FRAMEWORK={framework}",
        "--build-arg",
        f"BASE_IMAGE={base}",
        *options,
        *(word for tag in tags or [f"tridist:latest-{framework.lower()}"] for word in ("--tag", tag)),
        str(root),
    ]


def test_the_default_is_the_standard_image_on_debian(docker):
    assert docker.argv("build.sh") == _build(docker.root)


@pytest.mark.parametrize(
    ("framework", "base"),
    [
        ("STANDARD", "debian:bookworm-slim"),
        ("TENSORRTLLM", "nvcr.io/nvidia/tritonserver:25.03-trtllm-python-py3"),
        ("VLLM", "nvcr.io/nvidia/tritonserver:25.03-vllm-python-py3"),
    ],
)
def test_each_framework_has_its_base_whatever_the_case_it_is_typed_in(docker, framework, base):
    expected = _build(docker.root, framework=framework, base=base)
    assert docker.argv("build.sh", "--framework", framework) == expected
    assert docker.argv("build.sh", "--framework", framework.lower()) == expected


def test_every_option_reaches_the_engine_in_its_place(docker, tmp_path):
    conf = tmp_path / "my pip.conf"
    conf.touch()
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    argv = docker.argv(
        *("build.sh", "--framework", "vllm", "--base-image", "example:1", "--platform", "linux/arm64"),
        *("--tag", "a:1", "--tag", "b:2", "--build-arg", "http_proxy=http://proxy:1", "--no-cache"),
        *("--pip-conf", str(conf), "--ca-bundle", str(bundle)),
    )
    assert argv == _build(
        docker.root,
        framework="VLLM",
        base="example:1",
        before=["--platform", "linux/arm64"],
        options=[
            *("--build-arg", "http_proxy=http://proxy:1", "--no-cache"),
            *("--secret", f"id=pip_conf,src={conf}", "--secret", f"id=ca_bundle,src={bundle}"),
        ],
        tags=["a:1", "b:2"],
    )


def test_secrets_are_named_by_absolute_path(docker, tmp_path, monkeypatch):
    (tmp_path / "pip.conf").touch()
    monkeypatch.chdir(tmp_path)
    assert f"id=pip_conf,src={tmp_path}/pip.conf" in docker.argv("build.sh", "--pip-conf", "pip.conf")


def test_docker_comes_before_podman_unless_asked(scripts):
    scripts.add_engine("podman")
    assert scripts.argv("build.sh")[0] == "podman"
    scripts.add_engine("docker")
    assert scripts.argv("build.sh")[0] == "docker"
    assert scripts.argv("build.sh", "--engine", "podman") == _build(scripts.root, engine="podman")
    assert scripts.argv("build.sh", CONTAINER_ENGINE="podman")[0] == "podman"
    assert scripts.argv("build.sh", "--engine", "docker", CONTAINER_ENGINE="podman")[0] == "docker"


def test_a_dry_run_needs_no_engine_and_prints_what_a_shell_reads_back(scripts):
    printed = scripts.run("build.sh", "--dry-run", "--tag", "it's a tag").stdout
    assert printed.count("\n") == 1
    assert shlex.split(printed) == _build(scripts.root, tags=["it's a tag"])


def test_a_dry_run_starts_nothing(docker):
    assert docker.run("build.sh", "--dry-run").stdout.startswith("docker build ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither docker nor podman is on PATH"),
        (["--engine", "podman"], "podman is not on PATH"),
        (["--engine", "lxc"], "unknown engine 'lxc', one of: docker podman buildah"),
        (["--framework", "JAX", "--dry-run"], "unknown framework 'JAX', one of: STANDARD TENSORRTLLM VLLM"),
        (["--dry-run", "--tag"], "--tag needs a value"),
        (["--pip-conf", "/nonexistent", "--dry-run"], "no such file: /nonexistent"),
        (["--bogus"], "unknown option: --bogus"),
        (["stray"], "unknown option: stray"),
    ],
)
def test_mistakes_are_named_and_nothing_is_built(scripts, arguments, message):
    assert message in scripts.refusal("build.sh", *arguments)


def test_help_names_every_option_of_the_issue(scripts):
    text = scripts.run("build.sh", "--help").stdout
    for option in ("--framework", "--base-image", "--tag", "--platform", "--dry-run"):
        assert option in text
