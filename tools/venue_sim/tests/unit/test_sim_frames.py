"""Frames of the simulator's own WebSocket server."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.venue_sim.net import frames


def client_frame(payload: bytes, opcode: int = frames.TEXT, *, final: bool = True) -> bytes:
    """A frame as a client sends it: masked."""
    mask = os.urandom(4)
    head = bytearray(frames.header(len(payload), opcode))
    head[1] |= 0x80
    if not final:
        head[0] &= 0x7F
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes(head) + mask + masked


@given(st.binary(max_size=70_000), st.integers(min_value=1, max_value=4096))
def test_a_masked_frame_is_read_in_pieces_of_any_size(payload: bytes, piece: int) -> None:
    reader, data = frames.FrameReader(), client_frame(payload, frames.BINARY)

    found = [
        message
        for start in range(0, len(data), piece)
        for message in reader.feed(data[start : start + piece])
    ]

    assert found == [frames.Received(frames.BINARY, payload)]


def test_fragments_are_put_together_around_a_ping() -> None:
    reader = frames.FrameReader()
    data = (
        client_frame(b"he", final=False)
        + client_frame(b"beat", frames.PING)
        + client_frame(b"llo", frames.CONTINUATION)
    )

    assert reader.feed(data) == [
        frames.Received(frames.PING, b"beat"),
        frames.Received(frames.TEXT, b"hello"),
    ]


def test_an_unmasked_client_frame_is_a_protocol_error() -> None:
    with pytest.raises(frames.FrameError) as error:
        frames.FrameReader().feed(frames.text_frame(b"hello"))
    assert error.value.code == 1002


def test_a_message_beyond_the_limit_is_refused_before_it_is_stored() -> None:
    head = bytearray(frames.header(frames.MAX_CLIENT_MESSAGE_BYTES + 1))
    head[1] |= 0x80
    with pytest.raises(frames.FrameError) as error:
        frames.FrameReader().feed(bytes(head) + b"\x00" * 4)
    assert error.value.code == 1009


@pytest.mark.parametrize("length", [0, 125, 126, 4095, 4096, 65_535, 65_536])
def test_headers_have_the_length_in_the_shortest_form(length: int) -> None:
    frame = frames.text_frame(b"x" * length)

    assert frame[0] == 0x81
    size = 2 if length < 126 else (4 if length < 65_536 else 10)
    assert len(frame) == size + length
    assert int.from_bytes(frame[2:size], "big") == length if size > 2 else frame[1] == length
