from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tridist.icp.ucx import handshake as handshake_module
from tridist.icp.ucx.control import MAX_ADDRESS, NONCE_SIZE, Proof, Reason
from tridist.icp.ucx.handshake import Handshake, RefusedError, Role, refused_by_peer

ADDRESSES = st.binary(min_size=1, max_size=MAX_ADDRESS)
SECRETS = st.text(min_size=1, max_size=50)


def met(ours, theirs):
    """Both sides, after their hellos."""
    consumer, producer = Handshake(Role.CONSUMER, ours), Handshake(Role.PRODUCER, theirs)
    consumer.meet(producer.hello)
    producer.meet(consumer.hello)
    return consumer, producer


@given(st.none() | SECRETS, ADDRESSES, ADDRESSES)
def test_peers_with_the_same_secret_learn_each_others_address(secret, one, other):
    consumer, producer = met(secret, secret)
    assert producer.verify(consumer.prove(one)) == one
    assert consumer.verify(producer.prove(other, one), one) == other


@given(SECRETS, SECRETS, ADDRESSES)
def test_another_secret_proves_nothing(ours, theirs, address):
    if ours == theirs:
        theirs += "x"
    consumer, producer = met(ours, theirs)
    for verifier, proof in ((producer, consumer.prove(address)), (consumer, producer.prove(address, b""))):
        with pytest.raises(RefusedError) as raised:
            verifier.verify(proof)
        assert raised.value.reason is Reason.SECRET_DIFFERS


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [("s", None, Reason.SECRET_WANTED), (None, "s", Reason.SECRET_UNWANTED)],
)
def test_a_secret_on_one_side_only_is_told_from_a_wrong_one(ours, theirs, reason):
    with pytest.raises(RefusedError) as raised:
        Handshake(Role.PRODUCER, ours).meet(Handshake(Role.CONSUMER, theirs).hello)
    assert raised.value.reason is reason


@given(st.data())
def test_a_changed_byte_proves_nothing(data):
    consumer, producer = met("s", "s")
    address = data.draw(st.binary(min_size=1, max_size=300))
    proof = consumer.prove(address)
    whole = bytearray(proof.address + proof.mac)
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(RefusedError):
        producer.verify(Proof(bytes(whole[:-32]), bytes(whole[-32:])))


def test_a_proof_is_worth_nothing_in_another_greeting():
    consumer, producer = met("s", "s")
    proof = consumer.prove(b"a")
    another = Handshake(Role.PRODUCER, "s")
    another.meet(consumer.hello)
    with pytest.raises(RefusedError):
        another.verify(proof)
    with pytest.raises(RefusedError):
        consumer.verify(proof)  # its own, sent back
    with pytest.raises(RefusedError):
        consumer.verify(producer.prove(b"b", b"not a"), b"a")


def test_nonces_are_long_and_never_the_same():
    nonces = {Handshake(Role.CONSUMER, None).hello.nonce for _ in range(1000)}
    assert len(nonces) == 1000
    assert {len(nonce) for nonce in nonces} == {NONCE_SIZE}
    assert NONCE_SIZE >= 16


def test_proofs_are_compared_in_constant_time(monkeypatch):
    compared = []

    def spy(ours, theirs):
        compared.append(len(ours))
        return hmac.compare_digest(ours, theirs)

    class Spied:
        compare_digest = staticmethod(spy)
        digest = staticmethod(hmac.digest)

    monkeypatch.setattr(handshake_module, "hmac", Spied)
    consumer, producer = met("s", "s")
    producer.verify(consumer.prove(b"a"))
    assert compared == [32]


@pytest.mark.parametrize("secret", ["grün", "not UTF-8: \udcff", "x" * 1000])
def test_any_text_can_be_a_secret(secret):
    consumer, producer = met(secret, secret)
    assert producer.verify(consumer.prove(b"a")) == b"a"


def test_every_refusal_is_explained_to_both_sides():
    for reason in Reason:
        assert refused_by_peer(reason)
        assert str(RefusedError(reason))
