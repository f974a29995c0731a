"""What keeps a busy queue's file from becoming empty, on a real server."""

from __future__ import annotations

from pathlib import Path

from support.requests import a_request, one_of, serving
from support.waiting import until
from tridist.icp.nats import StreamConfig, placeholder
from tridist.icp.subjects import OperatorSubjects


def newest_file(server, stream):
    """The number of the file that the server writes a stream's messages to."""
    return max(int(path.stem) for path in Path(server.store_dir).glob(f"**/{stream}/msgs/*.blk"))


async def answered(client, count):
    for _ in range(count):
        await one_of(await client.post_request(a_request()))


async def placeholders(js, subjects):
    info = await js.stream_info(subjects.stream, subjects_filter=subjects.placeholder)
    return (info.state.subjects or {}).get(subjects.placeholder, 0)


async def test_a_busy_queue_keeps_its_file_and_counts_no_placeholder(client, worker, open_plane, js, monkeypatch):
    monkeypatch.setattr(placeholder, "_BUSY_SECONDS", 60.0)  # on a machine that stalls, too
    monkeypatch.setattr(placeholder, "_LIVES", 120.0)
    subjects = OperatorSubjects(client.namespace, "echo", 1)
    async with serving(worker, "echo"):
        await answered(client, 50)
        before = newest_file(open_plane.server, subjects.stream)
        assert before >= 25, "the server does not do any more what this is for"
        await answered(client, 3 * placeholder._LOOK_EVERY)
        assert await placeholders(js, subjects) == 1
        (queue,) = await client.queues()
        assert (queue.waiting, queue.running) == (0, 0)
        before = newest_file(open_plane.server, subjects.stream)
        await answered(client, 100)
        assert newest_file(open_plane.server, subjects.stream) <= before + 1


async def test_it_leaves_by_itself(client, worker, js, monkeypatch):
    monkeypatch.setattr(placeholder, "_BUSY_SECONDS", 60.0)
    monkeypatch.setattr(placeholder, "_LIVES", 0.5)
    subjects = OperatorSubjects(client.namespace, "echo", 1)
    requests = 3 * placeholder._LOOK_EVERY
    async with serving(worker, "echo"):
        await answered(client, requests)

    async def gone():
        return await placeholders(js, subjects) == 0

    assert (await js.stream_info(subjects.stream)).state.last_seq == requests + 1, "there was one"
    await until(gone)


async def test_a_queue_of_few_has_room_for_all_of_them(open_plane, js):
    streams = StreamConfig(max_messages=2)
    client, worker = await open_plane(streams=streams), await open_plane(streams=streams)
    async with serving(worker, "echo"):
        await answered(client, 4 * placeholder._LOOK_EVERY)
        assert await placeholders(js, OperatorSubjects(client.namespace, "echo", 1)) == 0
