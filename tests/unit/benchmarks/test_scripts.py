import ast
import inspect

import check
import inline_threshold
import pytest
import suite
from harness.metrics import METRICS, Baseline
from harness.runner import BENCHMARKS, NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_has_the_two_parts_that_the_command_runs(name):
    functions = {node.name for node in ast.parse((BENCHMARKS / f"{name}.py").read_text()).body if hasattr(node, "name")}
    assert {"measure", "show"} <= functions


def test_the_baseline_knows_every_watched_ratio():
    baseline = check.read(check.BASELINE)
    assert set(baseline) == {metric.name for metric in check.WATCHED}
    assert all(len(base.runs) >= 3 for base in baseline.values())


def test_a_run_like_the_baseline_passes_and_a_much_worse_one_does_not():
    baseline = check.read(check.BASELINE)
    same = {name: [base.value] for name, base in baseline.items()}
    assert check.worse(same, baseline) == []
    metric = next(metric for metric in check.WATCHED if metric.higher_is_worse)
    worst = baseline[metric.name].worst(higher_is_worse=True)
    assert check.worse({**same, metric.name: [worst * 1.01]}, baseline) == [metric]


def test_a_suspected_regression_is_run_twice_more(monkeypatch, tmp_path):
    runs = []

    def measure(benchmark, values):
        runs.append(benchmark)
        for metric in check.WATCHED:
            if metric.benchmark == benchmark:
                bad = benchmark == "request_plane" and runs.count(benchmark) == 1
                value = (10.0 if metric.higher_is_worse else 0.1) if bad else 1.0
                values.setdefault(metric.name, []).append(value)

    monkeypatch.setattr(check, "measure", measure)
    monkeypatch.setattr(check, "read", lambda _: {metric.name: Baseline((1.0, 1.0, 1.0)) for metric in check.WATCHED})
    assert check.check() == 0
    assert runs.count("request_plane") == 3
    assert runs.count("data_plane") == 1


def test_the_suite_shows_medians_of_the_benchmarks_that_ran():
    results = {"triton_operator": [{"added_ratio": value} for value in (1.0, 2.0, 1.2)]}
    table = suite.targets(results)
    cells = [list(column.cells) for column in table.columns]
    assert [column[0] for column in cells] == ["Triton: added / inline", "<= 1.50", "1.20", "1.00", "2.00", "yes"]
    assert table.row_count == 1


def test_a_crossover_counts_only_from_where_references_stay_better():
    assert inline_threshold.crossover([(1, 5, 9), (2, 9, 5), (4, 5, 9), (8, 9, 5), (16, 9, 5)]) == 8
    assert inline_threshold.crossover([(1, 5, 9), (2, 5, 9)]) is None


def test_targets_name_benchmarks_that_exist():
    assert {metric.benchmark for metric in METRICS} <= set(NAMES)
    assert inspect.iscoroutinefunction(inline_threshold.measure)
