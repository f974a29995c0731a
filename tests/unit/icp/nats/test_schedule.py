from __future__ import annotations

import itertools
from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tridist.icp.nats.credits import Ask
from tridist.icp.nats.schedule import ANSWER_SECONDS, FULL_SECONDS, Schedule
from tridist.icp.priorities import HIGH, HIGHS_IN_A_ROW, LOW, NORMAL, OTHERS_IN_A_ROW, PriorityClass, Turns

SHORT = FULL_SECONDS / 10


class Server:
    """A worker's schedule and what JetStream does with its pull requests; it answers when it is told to."""

    def __init__(self, slots: int) -> None:
        self.schedule: Schedule[tuple[PriorityClass | None, int]] = Schedule(slots)
        self.slots = slots
        self.now = 0.0
        self.waiting = {which: deque() for which in PriorityClass}
        self.delivered = set()
        self.pulls = {which: {} for which in PriorityClass}
        self.questions = set()
        self.numbers = itertools.count()
        self.tokens = itertools.count()
        self.started = []
        self.asked = self.withdrawals = self.returned = 0

    def post(self, which, count=1):
        self.waiting[which].extend((which, next(self.numbers)) for _ in range(count))

    def ask(self):
        """Send the pull requests that are due."""
        while due := self.schedule.due():
            for which in due:
                ask = self.schedule.ask(which)
                if not ask.credits:
                    continue
                token = str(next(self.tokens))
                self.schedule.ledger(which).issue(token, ask)
                self.pulls[which][token] = ask.credits
                self.asked += 1
                if ask.question:
                    self.questions.add(token)

    def serve(self, which):
        """Answer one pull request of a class: with a message, or that there is none. Whether there was one."""
        if not self.pulls[which]:
            return False
        token = next(iter(self.pulls[which]))
        if not self.waiting[which]:
            if token not in self.questions:
                return False
            del self.pulls[which][token]
            ledger = self.schedule.ledger(which)
            if not ledger.lapse(token, None):  # an answer that was given up: what is open still is not known any more
                ledger.reset()
                self.pulls[which].clear()
            else:
                self.schedule.emptied(which)
            return True
        self.pulls[which][token] -= 1
        if not self.pulls[which][token]:
            del self.pulls[which][token]
        item = self.waiting[which].popleft()
        self.schedule.ledger(which).take()
        self.schedule.heard(which, len(self.waiting[which]))
        self.schedule.arrived(item, which, self.now, movable=item not in self.delivered)
        self.delivered.add(item)
        return True

    def hand_out(self):
        while (item := self.schedule.next(self.now)) is not None:
            self.started.append(item)

    def review(self):
        review = self.schedule.review(self.now)
        for which in review.withdrawn:
            self.pulls[which].clear()
            self.withdrawals += 1
        for item in reversed(review.returned):
            self.waiting[item[0]].appendleft(item)
            self.returned += 1
        return any(review)

    def settle(self):
        """All that needs no time: asking, answering, handing out."""
        while True:
            self.hand_out()
            if self.schedule.overdue:
                self.review()
            self.ask()
            answers = [self.serve(which) for which in PriorityClass]
            if not any(answers):
                return

    def wait(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + FULL_SECONDS, end)
            if self.schedule.uneasy and self.review():  # a review that has found nothing changes nothing
                self.settle()

    def wait_in_silence(self):
        """Let nothing come for as long as an answer may take; whether a question was given up."""
        reviews = []
        for _ in range(int(ANSWER_SECONDS / FULL_SECONDS) + 3):
            self.now += FULL_SECONDS
            reviews.append(self.schedule.review(self.now).given_up)
        return any(reviews)

    def finish(self):
        self.schedule.freed(min(self.schedule.running, key=lambda item: item[1]), self.now)
        self.settle()

    def work(self, count, seconds=SHORT):
        """Let ``count`` requests take their time, one after the other; the classes that started meanwhile."""
        before = len(self.started)
        for _ in range(count):
            self.wait(seconds)
            self.finish()
        return [which for which, _ in self.started[before:]]

    def open(self):
        return {which: self.schedule.ledger(which).outstanding for which in PriorityClass}


def by_the_rule(*counts):
    """The order in which these are served when all of them wait from the start."""
    turns, left, order = Turns(), dict(zip(PriorityClass, counts, strict=True)), []
    while there := [which for which in PriorityClass if left[which]]:
        which = turns.choose(there)
        left[which] -= 1
        turns.started(which, [other for other in there if left[other]])
        order.append(which)
    return order


def idle(slots=1):
    server = Server(slots)
    server.settle()
    return server


@pytest.mark.parametrize(("slots", "few"), [(1, 1), (2, 1), (8, 2), (16, 4)])
def test_an_idle_worker_has_pull_requests_at_every_class(slots, few):
    assert idle(slots).open() == {HIGH: few, NORMAL: slots, LOW: few}


def test_an_ordinary_request_costs_one_pull_request_and_nothing_else():
    server = idle()
    before = server.asked
    for _ in range(50):
        server.post(NORMAL)
        server.settle()
        server.work(1)
    assert (server.asked - before, server.withdrawals) == (50, 0)


def test_a_backlog_of_ordinary_requests_costs_one_pull_request_for_each():
    server = idle()
    server.post(NORMAL, 51)
    server.settle()
    before = server.asked
    server.work(50)
    assert (server.asked - before, server.withdrawals) == (50, 0)


@pytest.mark.parametrize("seconds", [SHORT, 5 * FULL_SECONDS], ids=["short", "long"])
def test_what_waits_is_served_by_the_rule_whatever_came_first(seconds):
    server = Server(1)
    server.post(LOW, 40)
    server.post(NORMAL, 40)
    server.post(HIGH, 40)
    server.settle()
    assert [which for which, _ in server.started] + server.work(100, seconds) == by_the_rule(40, 40, 40)[:101]


def test_a_high_one_that_comes_to_a_saturated_worker_takes_the_next_slot_without_a_round_trip():
    server = idle()
    server.post(NORMAL, 10)
    server.settle()
    server.post(HIGH)
    server.settle()
    assert server.schedule.waiting == 1
    server.wait(SHORT)
    server.schedule.freed(server.started[-1], server.now)
    assert server.schedule.next(server.now)[0] is HIGH


def test_who_stays_full_gives_everything_back():
    server = idle()
    server.post(NORMAL)
    server.settle()
    server.post(HIGH, 2)
    server.post(LOW)
    server.settle()
    assert server.schedule.waiting == 2
    server.wait(2 * FULL_SECONDS)
    assert server.schedule.waiting == 0
    assert not any(server.open().values())
    assert [len(waiting) for waiting in server.waiting.values()] == [2, 0, 1]


def test_what_may_not_go_back_stays_and_goes_next():
    server = idle()
    server.post(NORMAL)
    server.settle()
    server.post(HIGH)
    server.delivered.add(server.waiting[HIGH][0])
    server.settle()
    server.wait(10 * FULL_SECONDS)
    assert (server.schedule.waiting, server.returned) == (1, 0)
    assert not server.schedule.uneasy, "there is nothing left to look after"
    assert server.work(1) == [HIGH]


def test_who_was_full_for_long_gives_back_at_once_the_next_time():
    server = idle()
    server.post(NORMAL)
    server.settle()
    server.wait(2 * FULL_SECONDS)
    server.finish()
    assert all(server.open().values())
    server.post(HIGH)
    server.settle()
    assert not any(server.open().values())
    server.work(1)
    server.post(HIGH)
    server.settle()
    assert any(server.open().values()), "it was short, so the next one is trusted again"


def test_a_saturated_worker_with_long_requests_asks_for_nothing_ahead():
    server = idle()
    server.post(NORMAL, 30)
    server.settle()
    server.work(5, 5 * FULL_SECONDS)
    server.post(HIGH, 5)
    server.wait(5 * FULL_SECONDS)
    assert server.schedule.waiting == 0
    assert server.returned == 0


def test_normal_ones_that_other_classes_left_no_room_for_are_not_asked_for_any_more():
    server = idle(4)
    server.post(HIGH, 2)
    server.settle()
    assert server.open()[NORMAL] == 4
    server.wait(2 * FULL_SECONDS)
    assert server.open()[NORMAL] == 2


def test_a_question_without_an_answer_holds_nobody_up_for_long():
    server = Server(1)
    server.ask()
    assert [sum(pulls.values()) for pulls in server.pulls.values()] == [1, 0, 0]
    server.pulls[HIGH].clear()  # lost
    server.post(NORMAL)
    for _ in range(int(ANSWER_SECONDS / FULL_SECONDS) + 3):
        assert not server.started
        assert server.schedule.uneasy
        server.now += FULL_SECONDS
        server.review()
    server.settle()
    assert [which for which, _ in server.started] == [NORMAL]


@pytest.mark.parametrize(("late", "others", "row"), [(LOW, NORMAL, OTHERS_IN_A_ROW), (NORMAL, HIGH, HIGHS_IN_A_ROW)])
def test_whose_turn_it_was_when_the_server_fell_silent_goes_as_soon_as_it_is_here(late, others, row):
    server = Server(1)
    server.post(others, 3 * OTHERS_IN_A_ROW)
    server.post(late)
    server.settle()
    assert server.work(row - 1) == [others] * (row - 1)
    server.schedule.freed(server.started[-1], server.now)
    server.ask()
    assert server.schedule.ledger(late).question is not None
    assert server.wait_in_silence()
    for _ in range(3):  # the others are here first, time and again
        server.ask()
        while not server.schedule.waiting:
            assert server.serve(HIGH) or server.serve(others)
            server.ask()
        server.hand_out()
        assert server.started[-1][0] is others
        server.now += SHORT
        server.schedule.freed(server.started[-1], server.now)
    assert server.serve(late)
    server.settle()
    assert server.started[-1][0] is late
    assert server.work(row) == [others] * row, "once"


def test_a_lower_one_that_comes_while_a_higher_one_is_on_its_way_goes_before_it_and_then_none_does():
    server = idle()
    server.post(HIGH)
    server.settle()
    server.post(HIGH, 6)  # it has heard of none of them
    server.post(LOW, 2)
    server.schedule.freed(server.started[-1], server.now)
    server.ask()
    server.serve(LOW)
    server.hand_out()
    server.settle()
    assert server.started[-1][0] is LOW
    assert server.work(7) == [HIGH] * 6 + [LOW]


def test_a_lower_one_that_is_here_waits_for_the_answer_about_a_higher_one():
    server = idle()
    server.post(LOW)
    server.post(NORMAL)
    server.serve(NORMAL)
    server.serve(LOW)
    server.hand_out()
    server.post(NORMAL)
    server.now += SHORT
    server.schedule.freed(server.started[-1], server.now)
    server.hand_out()
    assert len(server.started) == 1
    server.settle()
    assert [which for which, _ in server.started] == [NORMAL, NORMAL]


def test_draining_takes_out_what_waits():
    server = idle()
    server.schedule.arrived((None, 100), None, 0.0, movable=False)
    server.schedule.arrived((None, 101), None, 0.0, movable=False)
    server.post(LOW)
    server.serve(LOW)
    assert len(server.schedule.drain()) == 3
    assert server.schedule.next(0.0) is None
    assert server.schedule.waiting == 0


def test_direct_ones_go_before_all():
    server = idle()
    server.post(HIGH)
    server.serve(HIGH)
    server.schedule.arrived((None, 100), None, 0.0, movable=False)
    assert server.schedule.next(0.0) == (None, 100)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("post"), st.sampled_from(PriorityClass)),
        st.tuples(st.just("serve"), st.sampled_from(PriorityClass)),
        st.tuples(st.just("finish"), st.integers(0, 63)),
        st.tuples(st.just("wait"), st.floats(0, 3 * FULL_SECONDS)),
        st.tuples(st.sampled_from(["ask", "hand_out", "direct"]), st.none()),
    ),
    max_size=150,
)


def take(server, step, argument):
    if step in ("post", "serve", "wait"):
        getattr(server, step)(argument)
    elif step in ("ask", "hand_out"):
        getattr(server, step)()
    elif step == "direct":
        server.schedule.arrived((None, next(server.numbers)), None, server.now, movable=False)
    elif server.schedule.running:
        running = sorted(server.schedule.running, key=lambda item: item[1])
        server.schedule.freed(running[argument % len(running)], server.now)


@settings(max_examples=150, deadline=None)
@given(slots=st.sampled_from([1, 2, 3, 8, 16]), steps=STEPS)
@example(slots=1, steps=[("post", HIGH), ("ask", None), ("serve", HIGH), ("ask", None)])
@example(slots=1, steps=[("ask", None), *[("wait", 3 * FULL_SECONDS)] * 5])
def test_credits_and_waiting_are_bounded_and_everything_ends(slots, steps):
    server = Server(slots)
    few = max(1, slots // 4)
    for step, argument in steps:
        take(server, step, argument)
        assert len(server.schedule.running) <= slots
        for which in PriorityClass:
            ledger = server.schedule.ledger(which)
            assert ledger.outstanding == sum(server.pulls[which].values())
            here = len(server.schedule._classes[which].queue)
            assert here + ledger.outstanding <= (slots if which is NORMAL else few)
    server.settle()
    for _ in range(len(steps) + 1):  # whatever happened: all that was posted is served, with one slot at the least
        if server.schedule.running:
            server.finish()
        server.wait(ANSWER_SECONDS + 3 * FULL_SECONDS)
    assert not any(server.waiting.values())
    assert server.schedule.waiting == 0
    assert len(server.started) == len(set(server.started)) == next(server.numbers)
    assert all(server.open().values()), "it is idle: it must hear of the next request"


@settings(max_examples=100, deadline=None)
@given(
    slots=st.sampled_from([1, 2, 8]),
    flood=st.sampled_from([HIGH, NORMAL]),
    seconds=st.sampled_from([SHORT, 5 * FULL_SECONDS]),
    mixed=st.booleans(),
)
def test_no_class_starves(slots, flood, seconds, mixed):
    server = Server(slots)
    others = {HIGH, NORMAL} if mixed else {flood}
    for which in others:
        server.post(which, 200)
    server.settle()
    server.work(10, seconds)
    server.post(LOW)
    started = server.work(3 * OTHERS_IN_A_ROW, seconds)
    # What it is asked for comes on top: a slot that is taken is not counted twice.
    assert LOW in started[: 2 * OTHERS_IN_A_ROW + 4]
    if mixed:
        first = [which for which in started if which is not LOW]
        for start in range(len(first) - HIGHS_IN_A_ROW):
            assert NORMAL in first[start : start + HIGHS_IN_A_ROW + 1]


def test_asking_says_what_the_pull_request_is():
    server = Server(4)
    assert server.schedule.ask(HIGH) == Ask(1, question=True)
    assert server.schedule.ask(NORMAL) == Ask()
