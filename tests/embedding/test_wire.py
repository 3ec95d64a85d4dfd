"""The messages between the pipeline and its workers."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgsearch.embedding.wire import receive, send

_PATHS = st.lists(st.binary(max_size=40).map(os.fsdecode))


@settings(derandomize=True)
@given(st.lists(st.tuples(_PATHS, st.binary(max_size=100)), max_size=4))
def test_messages_arrive_as_they_were_sent_with_names_that_are_not_utf8(
    messages: list[tuple[list[str], bytes]],
) -> None:
    stream = io.BytesIO()
    for paths, data in messages:
        send(stream, {"paths": paths}, data)
    stream.seek(0)
    for paths, data in messages:
        message, received = receive(stream)
        assert message["paths"] == paths
        assert received == data
    with pytest.raises(EOFError):
        receive(stream)


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", "café.jpg".encode(), b"new\nline.jpg", b"\xff"])
def test_a_file_name_keeps_its_bytes(name: bytes) -> None:
    stream = io.BytesIO()
    send(stream, {"paths": [os.fsdecode(name)]})
    stream.seek(0)
    assert os.fsencode(receive(stream)[0]["paths"][0]) == name


@settings(derandomize=True)
@given(st.data())
def test_a_message_that_is_cut_off_anywhere_is_the_end(data: st.DataObject) -> None:
    stream = io.BytesIO()
    send(stream, {"begin": 3}, b"12345\n789")
    whole = stream.getvalue()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(EOFError):
        receive(io.BytesIO(whole[:cut]))


def test_a_message_without_bytes_has_none() -> None:
    stream = io.BytesIO()
    send(stream, {"ready": True})
    stream.seek(0)
    message, data = receive(stream)
    assert message["ready"] is True
    assert data == b""


def test_bytes_may_be_a_memoryview_of_an_array() -> None:
    stream = io.BytesIO()
    send(stream, {"replies": []}, memoryview(b"abc"))
    stream.seek(0)
    assert receive(stream)[1] == b"abc"
