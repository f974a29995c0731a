from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tridist import errors
from tridist.icp.tensor_uri import MAX_URI_LENGTH, TensorUri, new_tensor_id

ID = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"ucp://localhost:4000/{ID}", TensorUri("ucp", "localhost", 4000, ID)),
        (f"ucp://10.0.0.7:65535/{ID}", TensorUri("ucp", "10.0.0.7", 65535, ID)),
        (f"ucp://gpu-3.cluster_a.example:1/{ID}", TensorUri("ucp", "gpu-3.cluster_a.example", 1, ID)),
        (f"ucp://[::1]:4000/{ID}", TensorUri("ucp", "::1", 4000, ID)),
        (f"ucp://[fe80::1%eth0]:4000/{ID}", TensorUri("ucp", "fe80::1%eth0", 4000, ID)),
        (f"ucp://[::ffff:10.0.0.7]:4000/{ID}", TensorUri("ucp", "::ffff:10.0.0.7", 4000, ID)),
        (f"memory://{ID}/{ID}", TensorUri("memory", ID, None, ID)),
    ],
)
def test_what_is_read_is_written_the_same(text, expected):
    assert TensorUri.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        f"ucp://localhost:4000/{ID}\n",
        f"\nucp://localhost:4000/{ID}",
        f" ucp://localhost:4000/{ID}",
        f"ucp://localhost:4000/{ID}?x=1",
        f"ucp://localhost:4000//{ID}",
        f"ucp://localhost:4000/{ID[:-1]}",
        f"ucp://localhost:4000/{ID}0",
        f"ucp://localhost:4000/{ID.upper()}",
        f"ucp://localhost:0/{ID}",
        f"ucp://localhost:65536/{ID}",
        f"ucp://localhost:/{ID}",
        f"ucp://localhost:-1/{ID}",
        f"ucp://localhost:١٢/{ID}",
        f"ucp://user@localhost:1/{ID}",
        f"ucp://:4000/{ID}",
        f"ucp://[]:4000/{ID}",
        f"ucp://[%]:4000/{ID}",
        f"ucp://[1.2.3.4]:4000/{ID}",
        f"ucp://::1:4000/{ID}",
        f"UCP://localhost:4000/{ID}",
        f"://localhost:4000/{ID}",
        f"ucp://{'h' * MAX_URI_LENGTH}:4000/{ID}",
    ],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(errors.InvalidArgumentError) as raised:
        TensorUri.parse(text)
    assert raised.value.field == "uri"


@settings(max_examples=300, deadline=None)
@given(st.from_regex(r"[a-z]{1,4}://(\[[0-9a-f:.%]{1,8}\]|[a-zA-Z0-9._%-]{1,6})(:[0-9]{1,6})?/[0-9a-f]{32}\n?"))
def test_whatever_is_read_survives_being_written(text):
    try:
        uri = TensorUri.parse(text)
    except errors.InvalidArgumentError:
        return
    assert TensorUri.parse(str(uri)) == uri
    assert uri.host


def test_ids_are_long_and_never_the_same():
    ids = {new_tensor_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", tensor_id) for tensor_id in ids)
