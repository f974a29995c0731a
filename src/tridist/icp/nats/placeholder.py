"""Keeping a busy queue's file from becoming empty.

nats-server keeps the messages of a stream in files, and puts a new file in the place of the last one whenever that
holds no message any more. In a queue that its workers keep up with that is after nearly every request: a file made and
one removed for each, 150 µs and more of the server's processor time of the 430 that a request takes by itself, and 6 to
12 of 48 with 64 in flight (2026-11-21, nats-server 2.15.1). One message that nobody reads, in the last file, spares it
all of this.

So a worker of a busy queue puts one there now and then. It leaves by itself after some seconds, no consumer is ever
given it, and `inspection.queues` does not count it. Workers that take from the same queue name it alike, so that the
server takes one of theirs. Nothing depends on it: where it is refused or not permitted, all is as it was.
"""

from __future__ import annotations

import time
from typing import Any

from tridist.errors import PlaneError
from tridist.icp.nats.headers import request_headers
from tridist.icp.nats.jetstream import JetStream
from tridist.icp.nats.tasks import OwnedTasks
from tridist.icp.subjects import OperatorSubjects

_LOOK_EVERY = 64
"""Requests between two looks: one that comes alone pays for a number that grows by one."""
_BUSY_SECONDS = 3.0
"""A queue is busy when so many requests come in less. It is also how old a placeholder gets until there is another."""
_LIVES = 2 * _BUSY_SECONDS
_APART = 512
"""Requests between two placeholders. The server's files hold 4 MiB, which is 2,900 requests of 1 KiB: the larger they
are, the sooner a file is full, and the less does one that is made for each of them matter."""
_ROOM = 10_000
"""Requests that a queue has to hold for a few placeholders in it not to count."""


class Placeholder:
    """The placeholders of one operator's queue that this worker puts there.

    Args:
        jetstream: the server.
        subjects: whose queue.
        tasks: where the server is asked what kind of queue it is.
    """

    def __init__(self, jetstream: JetStream, subjects: OperatorSubjects, tasks: OwnedTasks) -> None:
        self._jetstream = jetstream
        self._connection = jetstream.connection
        self._subjects = subjects
        self._tasks = tasks
        self._came = 0
        self._looked_at = -_BUSY_SECONDS
        self._last: tuple[int, int] | None = None
        self._useful: bool | None = None
        self._connection.on_denied.append(self._denied)

    def close(self) -> None:
        """Put no more of them there; those that are leave by themselves."""
        self._useful = False
        if self._denied in self._connection.on_denied:
            self._connection.on_denied.remove(self._denied)

    def came(self, sequence: int) -> None:
        """A request came, with this number in its stream."""
        self._came += 1
        if self._came >= _LOOK_EVERY:
            self._came = 0
            self._look(sequence)

    def _look(self, sequence: int) -> None:
        now = time.monotonic()
        busy = now - self._looked_at < _BUSY_SECONDS
        self._looked_at = now
        if not busy or self._useful is False:
            return
        if self._useful is None:
            self._useful = False  # until the server has said what it is
            self._tasks.spawn(self._ask())
            return
        place = (sequence // _APART, int(time.time() // _BUSY_SECONDS))
        if place != self._last:
            self._last = place
            name = f"placeholder {place[0]} {place[1]}"
            # Without a reply: nobody minds if it is refused.
            self._connection.send(self._subjects.placeholder, headers=request_headers(_LIVES, name))

    async def _ask(self) -> None:
        try:
            info = await self._jetstream.call(f"STREAM.INFO.{self._subjects.stream}")
        except PlaneError:  # we may not ask, or it is gone: then it stays as it is
            return
        self._useful = _gains(info["config"])

    def _denied(self, text: str) -> None:
        if f'"{self._subjects.placeholder.lower()}"' in text.lower():
            self._useful = False


def _gains(stream: dict[str, Any]) -> bool:
    """Whether a stream's messages are in files, leave by themselves, and are so many that a few more do not count."""
    most = stream.get("max_msgs", -1)
    return bool(stream.get("storage") == "file" and stream.get("allow_msg_ttl") and (most <= 0 or most >= _ROOM))
