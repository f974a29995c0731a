"""Noticing that the process stood still, and what deliveries may then still say."""

from __future__ import annotations

import pytest

from tridist.icp.client_watch import ClientWatch
from tridist.icp.messages import InferenceRequest
from tridist.icp.nats.delivery import NatsDelivery
from tridist.icp.nats.pulse import Pulse


@pytest.fixture
def pulse(clock):
    return Pulse(clock)


def beats(pulse, clock, count, pause=2.0):
    for _ in range(count):
        clock.now += pause
        pulse.beat(6.0)


def test_what_is_read_while_the_loop_runs_came_now(pulse, clock):
    assert pulse.arrival() == clock.now
    beats(pulse, clock, 10)
    clock.now += 1.5
    assert pulse.arrival() == clock.now


def test_what_is_read_after_a_standstill_may_have_come_at_its_beginning(pulse, clock):
    beats(pulse, clock, 3)
    stopped = clock.now
    clock.now += 30
    assert pulse.arrival() == stopped
    clock.now += 0.5
    assert pulse.arrival() == stopped
    beats(pulse, clock, 1)
    assert pulse.arrival() == clock.now


def test_it_makes_no_difference_whether_the_beat_or_the_message_comes_first(pulse, clock):
    beats(pulse, clock, 3)
    stopped = clock.now
    clock.now += 30
    pulse.beat(6.0)
    assert pulse.arrival() == stopped


def a_delivery(received_at):
    held = ClientWatch().hold(InferenceRequest(operator="o"), 1, 1)

    async def settle(delivery, verdict):
        raise AssertionError(verdict)

    return NatsDelivery(held, "$JS.ACK", settle, direct=False, received_at=received_at)


def test_a_delivery_without_a_sign_of_life_for_the_ack_wait_is_overdue():
    delivery = a_delivery(100.0)
    assert not delivery.overdue(105.0, 6.0)
    assert delivery.overdue(106.0, 6.0)
    delivery.alive_at = 105.0
    assert not delivery.overdue(110.0, 6.0)
    assert delivery.overdue(112.0, 6.0)
