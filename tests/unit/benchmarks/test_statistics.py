import pytest
from harness.statistics import Latency, Spread, jain, settled_slope, slope


def test_latencies_are_in_microseconds():
    latency = Latency.of([index / 1e6 for index in range(1, 102)])
    assert (latency.p50_us, latency.p99_us, latency.count) == (pytest.approx(51), pytest.approx(100), 101)


@pytest.mark.parametrize("summary", [Latency, Spread])
def test_nothing_has_no_summary(summary):
    with pytest.raises(ValueError, match="no "):
        summary.of([])


def test_one_outlier_does_not_move_the_median_but_the_spread():
    assert Spread.of([1.0, 1.1, 0.9, 1.0, 7.0]) == Spread(1.0, 0.9, 7.0)


def test_fairness_is_one_for_equal_shares_and_one_nth_for_a_hoarder():
    assert jain([5, 5, 5, 5]) == pytest.approx(1)
    assert jain([20, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([0, 0]) == 0


def test_slope_is_growth_per_unit():
    assert slope([0, 1000, 2000], [50, 2050, 4050]) == pytest.approx(2)


def test_what_levels_off_has_no_settled_slope():
    assert settled_slope([0, 1, 2, 3], [0, 900, 1000, 1000]) == pytest.approx(0)
    assert settled_slope([0, 1, 2, 3, 4], [0, 900, 1000, 1001, 1002]) == pytest.approx(1)


def test_a_slope_of_too_few_points_is_none():
    with pytest.raises(ValueError, match="3 points"):
        settled_slope([0, 1, 2], [0, 1, 2])
