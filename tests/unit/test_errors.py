"""Errors keep their class, words and data on the wire and in pickles, and nothing hostile rides along."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tridist import errors
from tridist.errors import root

EXAMPLES = [
    errors.TridistError("plain", anything=1),
    errors.RemoteError("from afar", remote_code="NOVEL"),
    errors.InvalidArgumentError("slots", 0, "must be at least 1"),
    errors.InvalidNameError("operator", "a.b", "holds '.'"),
    errors.InvalidTensorError("shape", [-1], "has a negative dimension"),
    errors.ConfigurationError("nats.url", "x", "is no URL"),
    errors.MissingExtraError("the UCX data plane", "ucx"),
    errors.InvalidMessageError("inputs.x", "is missing"),
    errors.UnsupportedProtocolError(2, 1),
    errors.MessageTooLargeError(2_000_000, 1_048_576),
    errors.DeadlineExceededError("r1", "encoder", "unserved", "w7", version=3),
    errors.RequestCancelledError("r"),
    errors.WindowExceededError("r", 32),
    errors.OverloadedError("encoder", 100, 99, "requests"),
    errors.DuplicateRequestError("encoder", "pay 17"),
    errors.UnservedError("encoder", 3, "we may not make one"),
    errors.AttemptsExhaustedError("r1", 3),
    errors.WorkerLostError(3),
    errors.DeadLetterNotFoundError(7),
    errors.NotReplayableError(7, "its request was too large to be kept"),
    errors.OperatorError("encoder", ValueError("too wide")),
    errors.OperatorLoadError("encoder", "no such file"),
    errors.ModelError("m", "Invalid argument", "unexpected shape"),
    errors.PlaneError("something", where="here"),
    errors.PlaneClosedError("request plane"),
    errors.ConnectionFailedError("host:4222", "refused"),
    errors.TensorNotFoundError("ucp://h:1/" + "0" * 32),
    errors.TransferError("ucp://h:1/" + "0" * 32, "broke off"),
    errors.DeploymentError("worker-0", "exited with 1"),
]
each = pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: error.code)


def over_the_wire(error):
    return errors.error_from_wire(error.code, error.message, error.attributes)


def test_every_code_has_an_example_here():
    assert {error.code for error in EXAMPLES} == set(errors.all_codes())


def test_every_class_has_a_code_of_its_own():
    classes = [c for c in vars(errors).values() if inspect.isclass(c) and issubclass(c, errors.TridistError)]
    assert all("code" in vars(cls) for cls in classes)
    assert {cls.code: cls for cls in classes} == errors.all_codes()


@each
@pytest.mark.parametrize("way", [over_the_wire, copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])  # noqa: S301 (our own bytes)
def test_an_error_arrives_as_it_was(error, way):
    arrived = way(error)
    assert type(arrived) is type(error)
    assert (arrived.code, str(arrived), arrived.attributes) == (error.code, str(error), error.attributes)
    for name, value in error.attributes.items():
        assert getattr(arrived, name) == value


@each
def test_the_declared_attributes_are_there_and_the_words_show_them(error):
    declared = {name for cls in type(error).__mro__ for name in vars(cls).get("__annotations__", ())}
    declared -= {"code", "_STAGES"}
    assert declared <= error.attributes.keys()
    for name in declared - {"stage", "remote_code"}:
        assert str(getattr(error, name)) in str(error)


def test_an_unknown_code_is_kept_and_passed_on():
    arrived = errors.error_from_wire("NOVEL", "from the future", {"depth": 3, "remote_code": "forged"})
    assert isinstance(arrived, errors.RemoteError)
    assert (arrived.remote_code, arrived.depth, str(arrived)) == ("NOVEL", 3, "from the future")
    assert over_the_wire(arrived).remote_code == "NOVEL"


HOSTILE = [
    "message",
    "attributes",
    "self",
    "code",
    "args",
    "with_traceback",
    "__class__",
    "__dict__",
    "__cause__",
    "__context__",
    "__traceback__",
    "__notes__",
    "__str__",
    "__reduce__",
    "_STAGES",
    "",
    "not an identifier",
    "a.b",
    "1st",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("code", ["INTERNAL", "DEADLINE_EXCEEDED", "NOVEL"])
def test_a_hostile_attribute_changes_nothing(name, code):
    honest = errors.error_from_wire(code, "words", {"stage": "queued"})
    arrived = errors.error_from_wire(code, "words", {name: "evil", "stage": "queued"})
    assert type(arrived) is type(honest)
    assert (vars(arrived), arrived.args, str(arrived)) == (vars(honest), honest.args, "words")
    assert arrived.code == honest.code
    assert traceback.format_exception_only(arrived) == traceback.format_exception_only(honest)


def test_an_attribute_cannot_hide_what_a_subclass_defines():
    class FancyError(errors.TridistError):
        code = "TEST_FANCY"

        @property
        def advice(self):
            return "try again"

    try:
        arrived = errors.error_from_wire("TEST_FANCY", "words", {"advice": "give up", "hint": 1})
        assert (arrived.advice, arrived.hint) == ("try again", 1)
    finally:
        del root._REGISTRY["TEST_FANCY"]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([*errors.all_codes(), "NOVEL", ""]),
    st.text(),
    st.dictionaries(st.text() | st.sampled_from(HOSTILE), st.none() | st.integers() | st.text()),
)
def test_whatever_comes_from_the_wire_becomes_an_error(code, message, attributes):
    arrived = errors.error_from_wire(code, message, attributes)
    assert isinstance(arrived, errors.all_codes().get(code, errors.RemoteError))
    assert str(arrived) == message
    assert arrived.attributes.items() <= {**attributes, "remote_code": code}.items()


def test_a_code_cannot_be_used_twice():
    with pytest.raises(TypeError, match="'TRANSFER_FAILED'"):
        type("CopycatError", (errors.TridistError,), {"code": "TRANSFER_FAILED"})
    assert errors.all_codes()["TRANSFER_FAILED"] is errors.TransferError


def test_a_subclass_without_a_code_travels_as_its_parent():
    special = type("SpecialError", (errors.TransferError,), {})
    arrived = over_the_wire(special("ucp://x", "gone"))
    assert type(arrived) is errors.TransferError
    assert (arrived.uri, arrived.reason) == ("ucp://x", "gone")


def test_the_registry_cannot_be_changed_from_outside():
    errors.all_codes().clear()
    assert errors.all_codes()


def test_a_missing_extra_says_how_to_get_it():
    error = errors.MissingExtraError("The UCX data plane", "ucx")
    assert str(error) == "The UCX data plane needs the extra 'ucx': pip install 'tridist[ucx]'"


def test_a_stage_that_nobody_knows_is_shown_as_it_is():
    assert str(errors.DeadlineExceededError("r", "o", "elsewhere")).endswith(": elsewhere")


def endless():
    nested = []
    for _ in range(5000):
        nested = [nested]
    return nested


class Broken:
    def __repr__(self):
        raise ValueError("no")


@pytest.mark.parametrize(
    "value",
    ["x" * 10**7, b"x" * 10**6, list(range(10**6)), 10**5000, endless(), Broken(), {"k" * 500: "v"}],
    ids=["text", "bytes", "list", "number", "nested", "broken", "map"],
)
def test_a_value_of_any_size_or_kind_can_be_shown(value):
    error = errors.InvalidArgumentError("field", value, "is wrong")
    assert 0 < len(error.value) <= 120
    assert len(str(error)) < 200


@pytest.mark.parametrize("value", [0, "short", [1, 2], {"a": None}, (1,), None, True])
def test_a_small_value_is_shown_whole(value):
    assert errors.InvalidArgumentError("field", value, "is wrong").value == repr(value)


def test_every_error_is_caught_by_the_root():
    assert all(issubclass(cls, errors.TridistError) for cls in errors.all_codes().values())
    assert issubclass(errors.TransferError, errors.PlaneError)
    assert issubclass(errors.InvalidNameError, errors.InvalidArgumentError)
