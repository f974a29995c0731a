from __future__ import annotations

import pytest

from tridist.worker.counters import SECONDS, OperatorCounters, Outcome


def test_attempts_are_counted_by_their_number():
    counters = OperatorCounters()
    for attempt in (1, 1, 2, 3, 4, 100):
        counters.began(attempt)
    assert counters.attempts == [2, 1, 3]
    assert counters.retried == 4


@pytest.mark.parametrize(
    ("seconds", "index"), [(0.0, 0), (0.001, 0), (0.0011, 1), (300.0, len(SECONDS) - 1), (301.0, len(SECONDS))]
)
def test_a_duration_is_counted_in_the_first_bucket_that_holds_it(seconds, index):
    counters = OperatorCounters()
    counters.ended(Outcome.OK, seconds)
    assert counters.durations[index] == sum(counters.durations) == 1
    assert counters.seconds == seconds


def test_outcomes_are_counted_apart():
    counters = OperatorCounters()
    for outcome in (Outcome.OK, Outcome.OK, Outcome.CANCELLED):
        counters.ended(outcome, 0.0)
    assert counters.outcomes[Outcome.OK] == 2
    assert counters.outcomes[Outcome.CANCELLED] == 1
    assert counters.outcomes[Outcome.ERROR] == 0
