import pytest
from harness import runner
from harness.runner import BenchmarkError, split


def test_the_last_line_is_the_results_and_the_rest_is_for_people():
    assert split(' a table\n with lines\n{"p50_us": 1.5}\n') == (" a table\n with lines", {"p50_us": 1.5})


@pytest.mark.parametrize("output", ["", "only a table\n", "a table\n[1, 2]\n", '{"a": 1}\nan afterthought\n'])
def test_output_without_results_is_refused(output):
    with pytest.raises(BenchmarkError):
        split(output)


def test_a_script_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(runner, "BENCHMARKS", tmp_path)
    with pytest.raises(BenchmarkError, match="broken"):
        runner.run("broken", quick=True)


def test_a_script_is_told_to_be_quick(tmp_path, monkeypatch, capsys):
    (tmp_path / "echo.py").write_text("import sys, json; print('a table'); print(json.dumps({'told': sys.argv[1:]}))")
    monkeypatch.setattr(runner, "BENCHMARKS", tmp_path)
    assert runner.run("echo", quick=True) == {"told": ["--json", "--quick"]}
    assert runner.run("echo", quick=False) == {"told": ["--json"]}
    assert "a table" in capsys.readouterr().out
