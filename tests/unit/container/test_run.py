import os
import shlex

import pytest

_LIMITS = ["--ulimit", "memlock=-1", "--ulimit", "stack=67108864", "--cap-add", "SYS_PTRACE"]
_ME = f"{os.getuid()}:{os.getgid()}"


def _run(*, engine="docker", before=("--rm",), network="host", memory=("--shm-size", "10g"), options=(), image=None):
    return [
        *(engine, "run", *before, "--network", network, *memory, *_LIMITS, *options),
        *("--workdir", "/workspace", image or "tridist:latest-standard"),
    ]


def _workspace(root):
    mounts = [f"{root}:/workspace", "/tmp:/tmp", "/mnt:/mnt"]  # noqa: S108 - the mount asked for, not a file
    return [*(word for mount in mounts for word in ("--volume", mount)), "--env", "PYTHONPATH=/workspace/src"]


def test_without_options_the_images_own_command_runs(docker):
    assert docker.argv("run.sh") == _run()


def test_a_command_after_the_dashes_is_passed_on_word_by_word(docker):
    command = ["python", "-c", "print('a b')", "--name", "x", "--"]
    assert docker.argv("run.sh", "--", *command) == [*_run(), *command]


def test_mount_workspace_mounts_the_checkout_tmp_and_mnt_and_runs_as_the_caller(docker):
    assert docker.argv("run.sh", "-it", "--mount-workspace") == _run(
        before=["--rm", "--interactive", "--tty"],
        options=["--user", _ME, *_workspace(docker.root)],
    )


def test_podman_keeps_the_callers_identity_in_its_own_way(podman):
    identity = ["--user", _ME] if os.getuid() == 0 else ["--userns", "keep-id"]
    assert podman.argv("run.sh", "--mount-workspace") == _run(
        engine="podman", options=[*identity, *_workspace(podman.root)]
    )


def test_every_option_reaches_the_engine_in_its_place(docker, tmp_path):
    cache = tmp_path / "hf cache"
    argv = docker.argv(
        *("run.sh", "-d", "--keep", "--name", "worker", "--network", "plane", "--ipc", "host", "--user", "1:2"),
        *("--image", "example:1", "--gpus", "all", "--hf-cache", str(cache)),
        *("-v", "/data:/data:ro", "--volume", "/a b:/c", "-e", "A=1", "--env", "B"),
    )
    assert argv == _run(
        before=["--detach", "--name", "worker"],
        network="plane",
        memory=["--ipc", "host"],
        image="example:1",
        options=[
            *("--gpus", "all", "--user", "1:2", "--volume", f"{cache}:/home/tridist/.cache/huggingface"),
            *("--volume", "/data:/data:ro", "--volume", "/a b:/c", "--env", "A=1", "--env", "B"),
        ],
    )
    assert cache.is_dir()


def test_the_framework_picks_the_image(docker):
    assert docker.argv("run.sh", "--framework", "vllm") == _run(image="tridist:latest-vllm")


@pytest.mark.parametrize(
    ("gpus", "docker_words", "podman_words"),
    [
        ("none", [], []),
        ("0", [], []),
        ("all", ["--gpus", "all"], ["--device", "nvidia.com/gpu=all"]),
        ("2", ["--gpus", "2"], ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=1"]),
        ("device=3", ["--gpus", "device=3"], ["--device", "nvidia.com/gpu=3"]),
        (
            "device=0,2",
            ["--gpus", '"device=0,2"'],
            ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=2"],
        ),
    ],
)
def test_gpus_are_asked_for_as_each_engine_wants_it(docker, gpus, docker_words, podman_words):
    docker.add_engine("podman")
    assert docker.argv("run.sh", "--gpus", gpus) == _run(options=docker_words)
    assert docker.argv("run.sh", "--gpus", gpus, "--engine", "podman") == _run(engine="podman", options=podman_words)


def test_gpus_are_used_by_default_where_there_are_some(docker, tmp_path):
    control = tmp_path / "nvidiactl"
    control.touch()
    assert docker.argv("run.sh", NVIDIA_CONTROL_DEVICE=str(control)) == _run(options=["--gpus", "all"])


def test_secrets_and_settings_are_passed_by_name_and_only_when_set(docker):
    argv = docker.argv(
        *("run.sh", "-e", "UCX_TLS=tcp"),
        HF_TOKEN="s3cret",  # noqa: S106 - stands for one, to see that it stays out
        NATS_URL="nats://user:pass@example:4222",
        HF_ENDPOINT="",
        UCX_LOG_LEVEL="info",
        TRIDIST_X="1",
        UNRELATED="1",
    )
    assert argv == _run(
        options=[
            *("--env", "HF_TOKEN", "--env", "NATS_URL", "--env", "TRIDIST_X", "--env", "UCX_LOG_LEVEL"),
            *("--env", "UCX_TLS=tcp"),  # last, so that the one asked for wins
        ]
    )
    assert not any("s3cret" in word or "pass@" in word for word in argv)


def test_a_dry_run_needs_no_engine_makes_nothing_and_can_be_read_back(scripts, tmp_path):
    cache = tmp_path / "cache"
    result = scripts.run("run.sh", "--dry-run", "--hf-cache", str(cache), "--gpus", "device=0,1", "--", "echo", "a  b")
    assert result.returncode == 0
    assert shlex.split(result.stdout) == [
        *_run(options=["--gpus", '"device=0,1"', "--volume", f"{cache}:/home/tridist/.cache/huggingface"]),
        *("echo", "a  b"),
    ]
    assert not cache.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither docker nor podman is on PATH"),
        (["--engine", "buildah", "--dry-run"], "unknown engine 'buildah', one of: docker podman"),
        (["--gpus", "some", "--dry-run"], "--gpus: 'some' is none of"),
        (["--gpus", "", "--gpus", "-1", "--dry-run"], "--gpus: '-1' is none of"),
        (["--framework", "JAX", "--dry-run"], "unknown framework 'JAX'"),
        (["--name"], "--name needs a value"),
        (["bash"], "unknown option: bash; a command goes after --"),
    ],
)
def test_mistakes_are_named_and_nothing_runs(scripts, arguments, message):
    assert message in scripts.refusal("run.sh", *arguments)


def test_help_names_every_option_of_the_issue(scripts):
    text = scripts.run("run.sh", "--help").stdout
    for option in ("-it", "--mount-workspace", "--gpus", "--image", "--name", "--network", "--dry-run", "HF_TOKEN"):
        assert option in text
