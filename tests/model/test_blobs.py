"""Bytes in JSON come back as they went in; what is cut off says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.blobs import pack, unpack

values = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text().filter(lambda key: key != "bytes"), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text().filter(lambda key: key != "bytes"), values, max_size=4))
def test_what_was_packed_is_unpacked(data):
    assert unpack(pack(data)) == data


def test_what_is_cut_off_is_refused():
    packed = pack({"trees": b"\n\x00{" * 100})
    with pytest.raises(ValueError, match="missing"):
        unpack(packed[:-1])


def test_nothing_but_json_and_bytes_is_packed():
    with pytest.raises(TypeError, match="set is neither"):
        pack({"trees": {1}})
