from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tridist import errors
from tridist.icp import string_tensor
from tridist.icp.string_tensor import decode_strings, encode_strings


def objects(elements, shape=None):
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array if shape is None else array.reshape(shape)


@st.composite
def arrays(draw):
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    element = st.binary(max_size=6) | st.text(st.characters(exclude_categories=("Cs",)), max_size=4)
    return objects([draw(element) for _ in range(prod(shape))], shape)


@settings(max_examples=200, deadline=None)
@given(arrays())
def test_every_element_comes_back_as_bytes(array):
    decoded = decode_strings(encode_strings(array), array.shape)
    assert decoded.shape == array.shape
    assert decoded.dtype == np.object_
    expected = [x.encode() if isinstance(x, str) else x for x in array.reshape(-1)]
    assert decoded.reshape(-1).tolist() == expected


def test_the_layout_is_tritons():
    assert encode_strings(objects(["é", b"", "abc"])) == b"\2\0\0\0\xc3\xa9\0\0\0\0\3\0\0\0abc"


def test_elements_are_in_row_major_order_whatever_the_memory():
    array = objects([b"a", b"b", b"c", b"d"], (2, 2)).T
    assert decode_strings(encode_strings(array), (2, 2)).tolist() == [[b"a", b"c"], [b"b", b"d"]]


def test_fixed_width_arrays_are_taken_too():
    assert encode_strings(np.array(["a", "bc"])) == encode_strings(np.array([b"a", b"bc"])) == b"\1\0\0\0a\2\0\0\0bc"


@pytest.mark.parametrize("element", [1, None, 1.5, ["a"], bytearray(b"x")])
def test_other_elements_are_refused(element):
    array = np.empty(2, dtype=np.object_)
    array[0], array[1] = "fine", element
    with pytest.raises(errors.InvalidTensorError) as raised:
        encode_strings(array)
    assert type(element).__name__ in raised.value.reason


def test_text_that_is_no_unicode_is_refused():
    with pytest.raises(errors.InvalidTensorError, match="not valid Unicode"):
        encode_strings(objects(["\udc80"]))


def test_numbers_that_are_no_characters_are_refused():
    array = np.array(["a", "b"])
    array.view(np.uint32)[1] = 0x7FFFFFFF
    with pytest.raises(errors.InvalidTensorError, match="is no text"):
        encode_strings(array)


def test_an_element_that_a_length_cannot_say_is_refused(monkeypatch):
    monkeypatch.setattr(string_tensor, "MAX_ELEMENT_BYTES", 3)
    assert encode_strings(objects([b"abc"]))
    with pytest.raises(errors.InvalidTensorError, match="4 bytes"):
        encode_strings(objects([b"abcd"]))


@pytest.mark.parametrize(
    ("data", "shape", "reason"),
    [
        (b"", (1,), "ends before element 0 of 1"),
        (b"\1\0\0\0a\1\0", (2,), "ends before element 1 of 2"),
        (b"\2\0\0\0a", (1,), "ends inside element 0 of 1"),
        (b"\xff\xff\xff\xff", (1,), "ends inside element 0 of 1"),
        (b"\1\0\0\0a", (0,), "goes on after the 0 elements"),
        (b"\1\0\0\0ab", (1,), "goes on after the 1 elements"),
        (b"\0\0\0\0", (2**40, 2**40), "ends before element 1"),
    ],
)
def test_bytes_that_do_not_hold_the_shape_are_refused(data, shape, reason):
    with pytest.raises(errors.InvalidTensorError, match=reason):
        decode_strings(data, shape)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.lists(st.integers(0, 4), max_size=3).map(tuple))
def test_random_bytes_are_read_or_refused(data, shape):
    try:
        decoded = decode_strings(data, shape)
    except errors.InvalidTensorError:
        return
    assert encode_strings(decoded) == data


def test_a_view_is_read_like_bytes_and_what_comes_out_is_private():
    source = bytearray(b"\1\0\0\0a")
    decoded = decode_strings(memoryview(source), ())
    source[4] = ord("b")
    assert decoded.shape == ()
    assert decoded.item() == b"a"
