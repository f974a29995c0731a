import pytest
from harness.metrics import LEAST_TOLERANCE, METRICS, SPREADS, Baseline, Metric, of_size, regressed

COST = Metric("cost", "any", lambda results: results["cost"], 1.5)
RATE = Metric("rate", "any", lambda results: results["rate"], 0.6, higher_is_worse=False)


def test_targets_are_limits_in_the_right_direction():
    assert (COST.met(1.5), COST.met(1.51)) == (True, False)
    assert (RATE.met(0.6), RATE.met(0.59)) == (True, False)


def test_a_quiet_baseline_still_allows_for_another_days_noise():
    assert Baseline((2.0, 2.0, 2.0)).tolerance == LEAST_TOLERANCE


def test_a_noisy_baseline_allows_a_multiple_of_its_own_spread():
    baseline = Baseline((1.0, 1.0, 1.3))
    assert baseline.value == 1.0
    assert baseline.tolerance == pytest.approx(0.3 * SPREADS)


@pytest.mark.parametrize(("metric", "fine", "bad"), [(COST, 1.14, 1.16), (RATE, 0.88, 0.86)])
def test_only_the_worse_side_is_a_regression(metric, fine, bad):
    baseline = Baseline((1.0, 1.0, 1.0))
    better = 0.1 if metric.higher_is_worse else 10.0
    assert [regressed(metric, baseline, [value]) for value in (fine, better, bad)] == [False, False, True]


def test_a_rate_can_regress_however_noisy_its_baseline():
    assert regressed(RATE, Baseline((1.0, 0.4, 1.6)), [0.3])


def test_the_median_of_further_runs_decides():
    assert not regressed(COST, Baseline((1.0, 1.0, 1.0)), [3.0, 1.0, 1.1])
    assert regressed(COST, Baseline((1.0, 1.0, 1.0)), [3.0, 1.0, 1.2])


def test_a_size_is_found_by_its_bytes():
    assert of_size("sizes", "ratio", 8)({"sizes": [{"bytes": 4, "ratio": 1}, {"bytes": 8, "ratio": 0.5}]}) == 0.5


def test_every_metric_has_a_name_of_its_own():
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_process_that_keeps_more_of_a_request_counts():
    left = next(metric for metric in METRICS if metric.name.endswith("blocks left by each"))
    growth = {"client_blocks_per_request": 0.5, "worker_blocks_per_request": -0.1}
    assert left.read({"growth": growth}) == 0.5
    assert left.met(0.001)
    assert not left.met(1.0)
