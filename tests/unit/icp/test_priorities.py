from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tridist.icp.limits import MAX_PRIORITY, MIN_PRIORITY
from tridist.icp.priorities import HIGH, HIGHS_IN_A_ROW, LOW, NORMAL, OTHERS_IN_A_ROW, PriorityClass, Turns

CLASSES = st.sampled_from(PriorityClass)


def run(arrivals):
    """Serve one slot: before each start these arrive; returns the starts, each with what waited before it."""
    turns, waiting, starts = Turns(), dict.fromkeys(PriorityClass, 0), []
    for arriving in arrivals:
        for which in arriving:
            waiting[which] += 1
        there = {which for which in PriorityClass if waiting[which]}
        chosen = turns.choose(there)
        if chosen is None:
            assert not there
            continue
        waiting[chosen] -= 1
        turns.started(chosen, {which for which in PriorityClass if waiting[which]})
        starts.append((chosen, there))
    return starts


def test_the_sign_makes_the_class():
    assert [PriorityClass.of(n) for n in (MIN_PRIORITY, -1, 0, 1, MAX_PRIORITY)] == [LOW, LOW, NORMAL, HIGH, HIGH]


def test_nobody_is_chosen_where_nobody_waits():
    assert Turns().choose(()) is None


def test_higher_goes_first():
    starts = run([[LOW, NORMAL, HIGH], [], []])
    assert [which for which, _ in starts] == [HIGH, NORMAL, LOW]


def test_each_class_gets_its_share_of_a_crowd():
    starts = [which for which, _ in run([[HIGH] * 200 + [NORMAL] * 200 + [LOW] * 200] + [[]] * 169)]
    assert [starts.count(which) for which in PriorityClass] == [128, 32, 10]
    assert starts[:18] == [*[HIGH] * 4, NORMAL, *[HIGH] * 4, NORMAL, *[HIGH] * 4, NORMAL, HIGH, LOW, HIGH]


def test_what_passed_while_nobody_waited_is_not_counted():
    alone = [[HIGH]] * 50 + [[NORMAL]] * 50
    assert [which for which, _ in run([*alone, [LOW, NORMAL, HIGH], [], []])][-3:] == [HIGH, NORMAL, LOW]


@given(st.lists(st.lists(CLASSES, max_size=4), max_size=200))
def test_nobody_waits_for_more_than_the_rule_says(arrivals):
    highs = others = 0
    for which, there in run(arrivals):
        highs = highs + (which is HIGH) if NORMAL in there and which is not NORMAL else 0
        others = others + 1 if LOW in there and which is not LOW else 0
        assert highs <= HIGHS_IN_A_ROW
        assert others <= OTHERS_IN_A_ROW


@given(st.lists(st.lists(CLASSES, max_size=4), max_size=200))
def test_a_slot_is_never_left_empty_and_goes_down_only_for_a_turn(arrivals):
    starts = run(arrivals)
    for index, (which, there) in enumerate(starts):
        if which is min(there):
            continue
        before = [passed for passed, _ in starts[max(index - OTHERS_IN_A_ROW, 0) : index]]
        if which is LOW:
            assert len(before) == OTHERS_IN_A_ROW
            assert LOW not in before
        else:
            last = [passed for passed in before if passed is not LOW][-HIGHS_IN_A_ROW:]
            assert last == [HIGH] * HIGHS_IN_A_ROW
