"""Each rule of `ClientWatch`, by a clock of the test's own."""

from __future__ import annotations

import asyncio
import time

import pytest

from tridist import errors
from tridist.icp import client_watch
from tridist.icp.client_watch import ClientWatch
from tridist.icp.messages import InferenceRequest
from tridist.icp.reports import ClientReport, completes_receipt

ME, OTHER = "tridist.ns.response.me", "tridist.ns.response.other"
ECHO = ("echo", 1)


@pytest.fixture
def watch(clock):
    return ClientWatch(grace=2.0, clock=clock)


def a_request(request_id="r", client=ME, **fields):
    return InferenceRequest(**{"operator": "echo", "id": request_id, "reply_to": client, **fields})


def left(**sequences):
    return ClientReport(left=sequences)


# -- leaving ---------------------------------------------------------------------------------------------------------


def test_a_report_stops_what_is_held_and_says_so_once(watch):
    stopped = []
    held = watch.hold(a_request(), 7, 1)
    held.on_left = lambda: stopped.append(held)
    watch.report(ME, left(r=7), ECHO)
    watch.report(ME, left(r=7), ECHO)
    assert held.left
    assert stopped == [held]


@pytest.mark.parametrize(("client", "operator"), [(OTHER, ECHO), (ME, ("echo", 2)), (ME, ("other", 1))])
def test_only_its_own_client_leaves_a_request_and_only_of_the_operator_it_speaks_of(watch, client, operator):
    held = watch.hold(a_request(), 7, 1)
    watch.report(client, left(r=7), operator)
    assert not held.left


def test_a_later_request_of_the_same_id_is_another_one(watch):
    first, second = watch.hold(a_request(), 7, 1), watch.hold(a_request(), 9, 1)
    watch.report(ME, left(r=7), ECHO)
    assert (first.left, second.left) == (True, False)


def test_a_client_that_does_not_know_the_number_means_what_is_held(watch):
    held = watch.hold(a_request(), 7, 1)
    watch.report(ME, left(r=0))
    assert held.left
    watch.release(held)
    assert watch.hold(a_request(), 8, 1) is not None


def test_what_was_left_before_it_came_is_dropped_on_arrival_for_a_minute(watch, clock):
    watch.report(ME, left(r=7), ECHO)
    assert watch.hold(a_request(), 7, 1) is None
    assert watch.hold(a_request(), 7, 2) is None
    assert watch.hold(a_request(client=OTHER), 7, 1) is not None
    assert watch.hold(a_request(operator="other"), 7, 1) is not None
    assert watch.hold(a_request(), 8, 1) is not None
    clock.now += 61
    assert watch.hold(a_request(), 7, 1) is not None


def test_it_remembers_a_bounded_number_of_departures_the_latest_ones(watch, monkeypatch):
    monkeypatch.setattr(client_watch, "_MAX_REMEMBERED", 3)
    for number in range(5):
        watch.report(ME, left(**{f"r{number}": 7}), ECHO)
    dropped = [watch.hold(a_request(f"r{number}"), 7, 1) is None for number in range(5)]
    assert dropped == [False, False, True, True, True]


def test_what_is_said_to_this_worker_alone_is_not_remembered(watch):
    watch.report(ME, left(r=7))
    assert watch.hold(a_request(), 7, 1) is not None


async def test_once_the_final_response_goes_out_nothing_is_stopped(watch):
    held = watch.hold(a_request(), 7, 1)
    held.answer()
    watch.report(ME, left(r=7), ECHO)
    assert not held.left


async def test_nothing_is_posted_for_a_client_that_has_left(watch):
    held = watch.hold(a_request(), 7, 1)
    watch.report(ME, left(r=7), ECHO)
    with pytest.raises(errors.RequestCancelledError):
        held.answer()
    with pytest.raises(errors.RequestCancelledError):
        await held.room(0)


def test_one_that_cannot_be_stopped_does_not_keep_the_others_running(watch):
    first, second = watch.hold(a_request("a"), 1, 1), watch.hold(a_request("b"), 2, 1)
    first.on_left = lambda: 1 / 0
    watch.report(ME, left(a=1, b=2), ECHO)
    assert first.left
    assert second.left


def test_a_released_request_is_forgotten(watch):
    held = watch.hold(a_request(), 7, 1)
    assert watch.find(a_request(), 1) is held
    assert watch.find(a_request(), 2) is None
    assert watch.find(a_request(client=OTHER), 1) is None
    watch.release(held)
    watch.release(held)
    assert watch.find(a_request(), 1) is None
    watch.report(ME, left(r=0))
    assert not held.left


# -- enquiries -------------------------------------------------------------------------------------------------------


def test_clients_are_asked_about_what_has_been_held_for_a_while(watch, clock):
    watch.hold(a_request("old"), 1, 1)
    clock.now += 0.6
    watch.hold(a_request("young"), 2, 1)
    assert watch.enquiries() == {}
    clock.now += 0.6
    watch.hold(a_request("theirs", OTHER), 3, 1)
    assert watch.enquiries() == {ME: ["old"]}
    clock.now += 1
    assert watch.enquiries() == {ME: ["old", "young"], OTHER: ["theirs"]}


def test_nobody_is_asked_about_what_is_answered_or_left(watch, clock):
    answered, gone = watch.hold(a_request("a"), 1, 1), watch.hold(a_request("b"), 2, 1)
    clock.now += 5
    answered.answer()
    gone.leave()
    assert watch.enquiries() == {}


def absent_for(watch, clock, seconds):
    """Nobody listens at our client's address, as its worker hears each time that it asks."""
    for _ in range(int(seconds / 0.5)):
        clock.now += 0.5
        watch.enquiries()
        watch.absent(ME)


def test_a_client_that_is_absent_for_longer_than_the_grace_has_left(watch, clock):
    held, other = watch.hold(a_request(), 1, 1), watch.hold(a_request(client=OTHER), 2, 1)
    clock.now += 1
    absent_for(watch, clock, 2)
    assert not held.left
    absent_for(watch, clock, 1)
    assert held.left
    assert not other.left


def test_a_client_that_comes_back_within_the_grace_has_not_left(watch, clock):
    held = watch.hold(a_request(), 1, 1)
    clock.now += 1
    for _ in range(5):
        absent_for(watch, clock, 1.5)
        watch.report(ME, ClientReport(read={"r": 0}))
    assert not held.left


def test_a_silent_client_is_waited_for(watch, clock):
    held = watch.hold(a_request(), 1, 1)
    for _ in range(1000):
        clock.now += 1
        assert watch.enquiries() == {ME: ["r"]}
    assert not held.left


def test_it_asks_sooner_while_somebody_is_absent_and_forgets_who_has_nothing_here(watch, clock):
    held = watch.hold(a_request(), 1, 1)
    clock.now += 2
    assert watch.pause == 1
    watch.absent(ME)
    assert watch.pause == 0.5
    watch.release(held)
    watch.enquiries()
    assert watch.pause == 1


# -- the window ------------------------------------------------------------------------------------------------------


async def blocked(held, sequence):
    waiting = asyncio.ensure_future(held.room(sequence))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    return waiting


async def test_there_is_room_for_a_window_beyond_what_was_read(watch):
    held = watch.hold(a_request(response_window=3), 1, 1)
    for sequence in range(3):
        await held.room(sequence)
    waits = [await blocked(held, 3), await blocked(held, 4)]
    watch.report(ME, ClientReport(read={"r": 1}))
    await waits[0]
    assert not waits[1].done()
    watch.report(OTHER, ClientReport(read={"r": 9}))
    watch.report(ME, ClientReport(read={"r": 0, "unknown": 5}))
    await asyncio.sleep(0)
    assert not waits[1].done()
    watch.report(ME, ClientReport(read={"r": 2}))
    await waits[1]


@pytest.mark.parametrize("end", ["left", "released", "failed", "late"])
async def test_a_wait_for_room_ends(watch, end):
    deadline = time.time() + 0.2 if end == "late" else None
    held = watch.hold(a_request(response_window=1, deadline=deadline), 1, 1)
    waiting = await blocked(held, 1)
    if end == "left":
        watch.report(ME, left(r=1), ECHO)
    elif end == "released":
        watch.release(held)
    elif end == "failed":
        watch.fail_all(errors.PlaneClosedError("request plane"))
    expected = {"failed": errors.PlaneClosedError, "late": errors.DeadlineExceededError}
    with pytest.raises(expected.get(end, errors.RequestCancelledError)):
        await asyncio.wait_for(waiting, 10)


async def test_a_cancelled_wait_leaves_nothing_behind(watch):
    held = watch.hold(a_request(response_window=1), 1, 1)
    waiting = await blocked(held, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not held._waiters


@pytest.mark.parametrize(("window", "expected"), [(1, [0, 1, 2, 3]), (2, [0, 1, 2, 3]), (4, [1, 3]), (5, [1, 3])])
def test_receipts_come_twice_in_a_window(window, expected):
    assert [sequence for sequence in range(4) if completes_receipt(sequence, window)] == expected


# -- what was lost on its way ------------------------------------------------------------------------------------------


@pytest.fixture
def resent(watch):
    found = []
    watch.resend = lambda held, lost: found.append((held.request.id, lost))
    return found


def asked_about(watch, clock, *sent, **fields):
    """A request with these responses sent, about which its client was asked."""
    held = watch.hold(a_request(**fields), 1, 1)
    for sequence, data in enumerate(sent):
        held.keep(sequence, data)
    clock.now += 2.0
    assert watch.enquiries() == {ME: ["r"]}
    return held


def test_what_has_not_come_is_sent_again(watch, clock, resent):
    asked_about(watch, clock, b"0", b"1", b"2")
    watch.report(ME, ClientReport(read={"r": 1}, received={"r": 1}))
    assert resent == [("r", [b"1", b"2"])]


def test_what_was_sent_after_the_question_may_be_on_its_way(watch, clock, resent):
    held = asked_about(watch, clock, b"0")
    held.keep(1, b"1")
    watch.report(ME, ClientReport(received={"r": 1}))
    assert resent == []
    clock.now += 2.0
    watch.enquiries()
    watch.report(ME, ClientReport(received={"r": 1}))
    assert resent == [("r", [b"1"])]


def test_nothing_is_sent_again_to_another_or_of_what_was_settled(watch, clock, resent):
    held = asked_about(watch, clock, b"0")
    watch.report(OTHER, ClientReport(received={"r": 0}))
    watch.release(held)
    watch.report(ME, ClientReport(received={"r": 0}))
    assert resent == []


def test_what_was_read_is_not_kept(watch, clock, resent):
    held = asked_about(watch, clock, b"0", b"1", b"2")
    held.advance(2)
    watch.report(ME, ClientReport(received={"r": 0}))  # it contradicts itself: it gets what there is
    assert resent == [("r", [b"2"])]
