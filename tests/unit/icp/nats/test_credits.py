from __future__ import annotations

import random

import pytest

from tridist.icp.nats.credits import Ask, CreditLedger


def test_it_asks_for_all_free_slots_at_first():
    assert CreditLedger(8).wanted(8) == 8


def test_it_never_asks_for_more_than_there_is_room_for():
    ledger = CreditLedger(8)
    ledger.issue("a", Ask(3))
    assert ledger.wanted(5) == 2
    assert ledger.wanted(3) == 0
    assert ledger.wanted(-1) == 0


def test_freed_slots_are_asked_for_in_batches():
    ledger = CreditLedger(8)
    ledger.issue("a", Ask(8))
    for _ in range(3):
        ledger.take()
        assert ledger.wanted(8) == 0
    ledger.take()
    assert ledger.wanted(8) == 4


def test_a_single_slot_is_asked_for_again_at_once():
    ledger = CreditLedger(1)
    ledger.issue("a", Ask(1))
    assert ledger.wanted(1) == 0
    ledger.take()
    assert ledger.wanted(0) == 0
    assert ledger.wanted(1) == 1


def test_what_an_expired_pull_request_had_left_is_free_again():
    ledger = CreditLedger(8)
    ledger.issue("a", Ask(4))
    ledger.issue("b", Ask(4))
    ledger.take()
    assert ledger.lapse("a", 3)
    assert ledger.outstanding == 4


def test_a_pull_request_that_ends_unexplained_makes_the_ledger_void():
    ledger = CreditLedger(8)
    ledger.issue("a", Ask(4))
    assert not ledger.lapse("a", None)


def test_a_status_of_a_forgotten_pull_request_changes_nothing():
    ledger = CreditLedger(8)
    ledger.issue("a", Ask(8))
    ledger.reset()
    ledger.issue("b", Ask(5))
    assert ledger.lapse("a", 8)
    assert ledger.lapse("a", None)
    assert ledger.outstanding == 5


def test_a_question_that_is_answered_with_nothing_is_over():
    ledger = CreditLedger(8)
    ledger.issue("a", Ask(3, question=True))
    assert ledger.question == "a"
    ledger.take()
    assert ledger.lapse("a", None)
    assert (ledger.outstanding, ledger.question) == (0, None)


def test_a_question_that_is_answered_in_full_is_over():
    ledger = CreditLedger(8)
    ledger.issue("a", Ask(2, question=True))
    ledger.take()
    assert ledger.question == "a"
    ledger.take()
    assert ledger.question is None


def test_a_question_that_does_not_stand_alone_does_not_explain_what_is_left():
    ledger = CreditLedger(8)
    ledger.issue("a", Ask(2, question=True))
    ledger.issue("b", Ask(2))
    assert not ledger.lapse("a", None)


def test_messages_nobody_asked_for_do_not_make_it_negative():
    ledger = CreditLedger(2)
    ledger.take()
    assert ledger.outstanding == 0
    assert ledger.wanted(2) == 2


@pytest.mark.parametrize("seed", range(20))
def test_against_a_model_of_the_server(seed: int):
    """Pulls are served in turn, some expire with what they had left: the total is always the server's."""
    chance = random.Random(seed)
    slots, held, server, number = chance.choice([1, 2, 3, 16, 64]), 0, {}, 0
    ledger = CreditLedger(slots)
    for _ in range(500):
        wanted = ledger.wanted(slots - held)
        if wanted:
            number += 1
            server[str(number)] = wanted
            ledger.issue(str(number), Ask(wanted))
        if server and chance.random() < 0.6:
            token = chance.choice(list(server))
            server[token] -= 1
            if not server[token]:
                del server[token]
            ledger.take()
            held += 1
        elif server and chance.random() < 0.2:
            token = chance.choice(list(server))
            assert ledger.lapse(token, server.pop(token))
        elif held:
            held -= 1
        assert ledger.outstanding == sum(server.values())
        assert ledger.outstanding + held <= slots
        assert ledger.outstanding or held or ledger.wanted(slots) == slots
