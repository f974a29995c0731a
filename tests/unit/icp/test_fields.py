from __future__ import annotations

import math

import pytest

from tridist import errors
from tridist.icp.fields import FieldReader


def refusal(read, name="f", **fields):
    reader = FieldReader(fields, "outer")
    with pytest.raises(errors.InvalidMessageError) as raised:
        read(reader)
    assert raised.value.field == f"outer.{name}"
    return raised.value.reason


@pytest.mark.parametrize("value", [None, [], "text", 1, b"", True])
def test_only_a_map_has_fields(value):
    with pytest.raises(errors.InvalidMessageError) as raised:
        FieldReader(value, "outer")
    assert raised.value.field == "outer"
    assert type(value).__name__ in raised.value.reason


@pytest.mark.parametrize("kind", ["text", "integer", "boolean"])
def test_an_absent_field_needs_a_default(kind):
    read = getattr(FieldReader({}, "outer"), kind)
    default = {"text": "d", "integer": 5, "boolean": False}[kind]
    assert read("f", default) is default
    assert refusal(lambda r: getattr(r, kind)("f")) == "is missing"


@pytest.mark.parametrize("kind", ["text", "integer", "boolean", "sequence", "mapping"])
def test_nil_is_not_absence(kind):
    assert "NoneType" in refusal(lambda r: getattr(r, kind)("f"), f=None)


def test_text_has_a_longest_length():
    assert FieldReader({"f": "äöü"}).text("f", max_length=3) == "äöü"
    assert refusal(lambda r: r.text("f", max_length=2), f="äöü") == "has 3 characters, 2 are allowed"
    assert refusal(lambda r: r.text("f"), f=b"abc") == "is a bytes, not a str"


def test_integers_have_bounds():
    assert FieldReader({"f": 0}).integer("f") == 0
    assert FieldReader({"f": -2}).integer("f", minimum=-2, maximum=7) == -2
    assert FieldReader({"f": 7}).integer("f", minimum=-2, maximum=7) == 7
    for value in (-3, 8, True):
        assert refusal(lambda r: r.integer("f", minimum=-2, maximum=7), f=value).endswith("from -2 to 7")
    assert "float" in refusal(lambda r: r.integer("f"), f=1.0)


@pytest.mark.parametrize("value", [0, -1, 1.5, 2**64 - 1, 5e-324])
def test_numbers_are_finite(value):
    read = FieldReader({"f": value}).number("f")
    assert read == float(value)
    assert type(read) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", [1]])
def test_other_numbers_are_refused(value):
    assert "finite number" in refusal(lambda r: r.number("f"), f=value)


@pytest.mark.parametrize("fields", [{}, {"f": None}])
def test_optional_fields_may_be_absent_or_nil(fields):
    reader = FieldReader(fields)
    assert reader.number("f") is None
    assert reader.optional("f", bytes) is None
    assert reader.nested("f") is None


def test_optional_fields_have_a_type_all_the_same():
    assert FieldReader({"f": b"x"}).optional("f", bytes) == b"x"
    assert refusal(lambda r: r.optional("f", bytes), f="x") == "is a str, not a bytes"


def test_sequences_have_a_most():
    assert FieldReader({}).sequence("f") == []
    assert FieldReader({"f": [1, "a"]}).sequence("f", max_items=2) == [1, "a"]
    assert refusal(lambda r: r.sequence("f", max_items=1), f=[1, 2]) == "has 2 items, 1 are allowed"


def test_texts_hold_nothing_but_text():
    assert FieldReader({}).texts("f") == ()
    assert FieldReader({"f": ["a", "b"]}).texts("f") == ("a", "b")
    assert refusal(lambda r: r.texts("f"), f=["a", 7]) == "holds 7, which is not a string"


def test_mappings_have_text_for_keys():
    source = {"a": 1}
    read = FieldReader({"f": source}).mapping("f", max_items=1)
    read["b"] = 2
    assert source == {"a": 1}
    assert FieldReader({}).mapping("f") == {}
    assert refusal(lambda r: r.mapping("f", max_items=1), f={"a": 1, "b": 2}) == "has 2 items, 1 are allowed"
    assert "b'a'" in refusal(lambda r: r.mapping("f"), f={b"a": 1})


def test_a_nested_field_knows_where_it_is():
    inner = FieldReader({"f": {"g": {}}}, "outer").nested("f").nested("g")
    assert inner.where("h") == "outer.f.g.h"
    with pytest.raises(errors.InvalidMessageError) as raised:
        inner.integer("h")
    assert raised.value.field == "outer.f.g.h"


def test_endless_names_and_values_are_cut():
    reader = FieldReader({"f": ["x" * 10**6, 5]}, "p" * 10**6)
    with pytest.raises(errors.InvalidMessageError) as raised:
        reader.mapping("f")
    assert len(raised.value.field) == 120
    nested = []
    for _ in range(5000):
        nested = [nested]
    for value in ([nested], [[0] * 10**6], [b"x" * 10**6]):
        assert len(refusal(lambda r: r.texts("f"), f=value)) < 200
