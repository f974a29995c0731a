from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.strategies import names
from tridist import errors
from tridist.icp import subjects
from tridist.icp.subjects import MAX_VERSION, OperatorSubjects, check_name, check_version, parse_stream

ENCODER = OperatorSubjects("default", "encoder", 3)
BAD_NAMES = ["", "a.b", "a b", "*", ">", "a:b", "ä", "a\n", "\n", "a\0", "a/b", "x" * 65, None, 5, b"a"]


def test_the_names_are_these():
    assert ENCODER.stream == "tridist:default:encoder:3"
    assert ENCODER.all == "tridist.default.request.encoder.3.>"
    assert ENCODER.shared == "tridist.default.request.encoder.3.shared"
    assert ENCODER.direct("w1") == "tridist.default.request.encoder.3.direct.w1"
    assert ENCODER.direct_consumer("w1") == "direct-w1"
    assert subjects.response_inbox("default", "c1") == "tridist.default.response.c1"
    assert subjects.status("default") == "tridist.default.status"
    assert ENCODER.stream.startswith(subjects.stream_prefix("default"))


def test_no_component_can_be_the_shared_consumer():
    assert ENCODER.direct_consumer(subjects.SHARED_CONSUMER) != subjects.SHARED_CONSUMER
    assert ENCODER.direct("shared") != ENCODER.shared


@pytest.mark.parametrize("name", ["a", "A-b_9", "-", "x" * 64])
def test_names_that_a_token_can_hold(name):
    assert check_name("operator", name) == name


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_no_token_can_hold(name):
    with pytest.raises(errors.InvalidNameError) as raised:
        check_name("operator", name)
    assert raised.value.field == "operator"


@pytest.mark.parametrize(("name", "bad"), [("ab.c", "'.'"), ("ab\n", r"'\\n'"), ("ab*.", r"'\*'")])
def test_the_first_bad_character_is_named(name, bad):
    with pytest.raises(errors.InvalidNameError, match=f"holds {bad}"):
        check_name("operator", name)


@pytest.mark.parametrize("version", [1, MAX_VERSION])
def test_versions_that_count(version):
    assert check_version(version) == version


@pytest.mark.parametrize("version", [0, -1, MAX_VERSION + 1, True, 1.0, "1", None])
def test_versions_that_do_not(version):
    with pytest.raises(errors.InvalidNameError) as raised:
        check_version(version)
    assert raised.value.field == "version"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_every_part_is_checked(name):
    for arguments in ((name, "o", 1), ("n", name, 1)):
        with pytest.raises(errors.InvalidNameError):
            OperatorSubjects(*arguments)
    for method in (ENCODER.direct, ENCODER.direct_consumer):
        with pytest.raises(errors.InvalidNameError):
            method(name)
    with pytest.raises(errors.InvalidNameError):
        OperatorSubjects("n", "o", 0)


OPERATORS = st.builds(OperatorSubjects, names(), names(), st.integers(1, MAX_VERSION))


@settings(max_examples=100, deadline=None)
@given(OPERATORS, OPERATORS)
def test_a_stream_belongs_to_one_operator(one, other):
    assert parse_stream(one.stream) == one
    assert (one.stream == other.stream) is (one == other)


@pytest.mark.parametrize(
    "stream",
    [
        "",
        "KV_default",
        "tridist:default:encoder",
        "tridist:default:encoder:3:4",
        "other:default:encoder:3",
        "tridist:default:encoder:0",
        "tridist:default:encoder:03",
        "tridist:default:encoder:+3",
        "tridist:default:encoder:-3",
        "tridist:default:encoder:3\n",
        "tridist:default:encoder:٣",
        "tridist:default:encoder:²",
        "tridist:default:encoder:" + "9" * 5000,
        f"tridist:default:encoder:{MAX_VERSION + 1}",
        "tridist::encoder:3",
        "tridist:a.b:encoder:3",
        "tridist:default:" + "x" * 65 + ":3",
    ],
)
def test_other_streams_are_not_ours(stream):
    assert parse_stream(stream) is None
