import os
import signal
from pathlib import Path

import pytest

_PIP = "-m pip install --no-input --disable-pip-version-check --constraint constraints.txt"


def _installs(extras: str) -> list[str]:
    return [f"{_PIP} setuptools", f"{_PIP} --no-build-isolation --editable .[{extras}]"]


def _makes(checkout) -> str:
    return f"-m venv --clear {checkout.path / '.venv'}"


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_first_run_makes_the_environment_and_the_second_does_nothing(checkout):
    first = checkout.run()
    assert (first.returncode, first.stderr) == (0, "")
    assert checkout.calls() == [_makes(checkout), *_installs("all")]

    second = checkout.run()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert checkout.calls() == []


def test_fewer_extras_are_served_by_more_but_not_the_other_way_round(checkout):
    checkout.run("all")
    checkout.calls()
    checkout.run("dev,all")
    assert checkout.calls() == _installs("all,dev")
    checkout.run("all")
    assert checkout.calls() == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_are_installed_into_the_same_environment(checkout, name):
    checkout.run()
    checkout.calls()
    with (checkout.path / name).open("a") as file:
        file.write("# changed\n")
    checkout.run()
    assert checkout.calls() == _installs("all")


def test_another_interpreter_or_place_means_another_environment(checkout):
    checkout.run()
    stamp = checkout.path / ".venv" / ".tridist-stamp"
    stamp.write_text("\n".join(["0" * 64, *stamp.read_text().splitlines()[1:]]) + "\n")
    leftover = checkout.path / ".venv" / "leftover"
    leftover.touch()
    checkout.calls()

    assert "Python or the directory changed" in checkout.run().stdout
    assert checkout.calls() == [_makes(checkout), *_installs("all")]
    assert not leftover.exists()


def test_an_environment_whose_python_is_gone_is_made_again(checkout):
    checkout.run()
    (checkout.path / ".venv" / "bin" / "python").unlink()
    assert "no working Python" in checkout.run().stdout


def test_failing_pip_shows_the_end_of_its_log_and_the_next_run_starts_afresh(checkout):
    (checkout.control / "fail").touch()
    failed = checkout.run()
    assert failed.returncode == 1
    assert "ERROR: no matching distribution" in failed.stderr
    assert ".tridist/bootstrap.log" in failed.stderr
    assert "ERROR" not in failed.stdout
    checkout.calls()

    (checkout.control / "fail").unlink()
    assert checkout.run().returncode == 0
    assert checkout.calls() == [_makes(checkout), *_installs("all")]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_install_takes_pip_with_it_and_is_started_afresh(checkout, how):
    (checkout.control / "slow").write_text("60\n")
    process = checkout.start()
    pip = checkout.wait_for_pip()
    (checkout.path / ".venv" / "half-made").touch()
    process.send_signal(how)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in err
    assert not _is_alive(pip)

    (checkout.control / "slow").unlink()
    assert "did not finish, making .venv again" in checkout.run().stdout
    assert not (checkout.path / ".venv" / "half-made").exists()


def test_a_killed_run_keeps_others_out_for_as_long_as_its_pip_writes(checkout):
    (checkout.control / "slow").write_text("2\n")
    process = checkout.start()
    pip = checkout.wait_for_pip()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (checkout.control / "slow").unlink()

    result = checkout.run()
    assert not _is_alive(pip)
    assert result.returncode == 0
    assert result.stdout.index("another run is preparing") < result.stdout.index("did not finish, making .venv again")


def test_two_runs_at_once_install_once(checkout):
    (checkout.control / "slow").write_text("0.5\n")
    runs = [checkout.start() for _ in range(2)]
    outputs = [run.communicate(timeout=30)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sum("waiting for it" in output for output in outputs) == 1
    assert checkout.calls() == [_makes(checkout), *_installs("all")]


def test_pip_gets_the_users_settings_but_not_the_users_python_path(checkout):
    checkout.run(PIP_INDEX_URL="https://packages.example/simple", PYTHONPATH="/elsewhere")
    assert {tuple(line.split("|")[:2]) for line in checkout.recorded()} == {("https://packages.example/simple", "")}


def test_nothing_that_is_kept_names_a_package_index(checkout):
    checkout.run(PIP_INDEX_URL="https://packages.example/simple")
    kept = [path for path in checkout.path.rglob("*") if path.is_file()]
    assert kept
    assert not any("packages.example" in path.read_text(errors="replace") for path in kept)


def test_an_environment_that_is_a_link_is_left_alone(checkout, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "bin").mkdir(parents=True)
    (elsewhere / "precious").touch()
    (checkout.path / ".venv").symlink_to(elsewhere)
    result = checkout.run()
    assert result.returncode == 1
    assert "symbolic link" in result.stderr
    assert (elsewhere / "precious").exists()
