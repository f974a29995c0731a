"""Writing to a control stream from any thread, without waking the thread that reads it.

Handing a request to the UCX thread's loop costs a wake-up, about 40 µs on two cores, before its first byte leaves. So
whoever asks writes it to the socket itself; only what the kernel does not take at once goes the long way.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import threading

LINGER = 0.001
"""Seconds that a frame which nobody waits for may wait for company. By itself it costs its sender 50 to 70 µs before it
goes on (the kernel wakes the other side from within the call), and the other side a wake-up."""


def ended_by_peer(stream: socket.socket) -> bool:
    """Whether the kernel knows of the end of a stream, even if nobody has come to read that."""
    poller = select.poll()
    poller.register(stream.fileno(), select.POLLRDHUP)
    return bool(poller.poll(0))


class Outbox:
    """The writing side of one stream, once nothing else writes to it.

    Args:
        transport: the stream; its owner reads it.
        loop: the transport's.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        # A duplicate: the transport may close its own descriptor while another thread is about to write to it, and the
        # number may be another file's by then.
        descriptor = os.dup(transport.get_extra_info("socket").fileno())
        self._stream: socket.socket | None = socket.socket(fileno=descriptor)
        self._stream.setblocking(False)
        self._lock = threading.Lock()
        self._queued: list[bytes] = []
        self._waiting: list[bytes] = []
        self._timed = False
        self._detour = False

    def write(self, data: bytes) -> None:
        """Send a frame; into the void when the stream has ended, which its reader hears of."""
        with self._lock:
            if self._stream is None:
                return
            if self._waiting:
                data = b"".join((*self._waiting, data))
                self._waiting.clear()
            rest = data if self._detour else self._send(self._stream, data)
            if rest:
                self._queued.append(rest)
                self._detour = True
                self._loop.call_soon_threadsafe(self._flush)

    def write_later(self, data: bytes) -> None:
        """Send a frame that nobody waits for: with the next one, or after `LINGER` seconds; from a running loop.

        Frames keep their order.
        """
        with self._lock:
            self._waiting.append(data)
            timed, self._timed = self._timed, True
        if not timed:
            asyncio.get_running_loop().call_later(LINGER, self.hurry)

    def hurry(self) -> None:
        """Send what `write_later` has left waiting."""
        self._timed = False
        if self._waiting:
            self.write(b"")

    def reader_is_there(self) -> bool:
        """Whether neither the peer nor this side has ended the stream, as `Link.peer_has_ended` tells; any thread."""
        with self._lock:
            return self._stream is not None and not ended_by_peer(self._stream)

    def close(self) -> None:
        """Write no more; on the loop's thread."""
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    @staticmethod
    def _send(stream: socket.socket, data: bytes) -> bytes:
        """Send what the kernel takes; returns the rest."""
        try:
            return data[stream.send(data) :]
        except BlockingIOError:
            return data
        except OSError:
            return b""

    def _flush(self) -> None:
        """Let the transport write what has queued up; frames go straight again once it has nothing left."""
        with self._lock:
            data = b"".join(self._queued)
            self._queued.clear()
            if data and not self._transport.is_closing():
                self._transport.write(data)
            self._detour = self._transport.get_write_buffer_size() > 0 and not self._transport.is_closing()
