import asyncio

from harness.load import alternate, compare, latencies, loaded


async def test_latencies_run_one_at_a_time():
    running = most = 0

    async def call():
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        running -= 1

    taken = await latencies(call, 5)
    assert len(taken) == 5
    assert most == 1
    assert min(taken) >= 0.001


async def test_load_keeps_as_many_in_flight_as_told_and_counts_every_call():
    running = most = calls = 0

    async def call():
        nonlocal running, most, calls
        running, calls = running + 1, calls + 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1

    found = await loaded(call, 7, 0.05)
    assert (most, running) == (7, 0)
    assert len(found.seconds) == calls
    assert 0 < found.rps <= 7 / 0.005


async def test_every_subject_takes_its_turn_at_being_first():
    order = []

    async def subject(name):
        order.append(name)
        return name

    results = await alternate({name: lambda name=name: subject(name) for name in "abc"}, 4)
    assert "".join(order) == "abc" + "bca" + "cab" + "abc"
    assert results == {name: [name] * 4 for name in "abc"}


async def test_calls_are_compared_round_by_round_and_summarised_over_all_rounds():
    order = []

    async def call(name):
        order.append(name)

    found = await compare({name: lambda name=name: call(name) for name in "ab"}, 2, 3)
    assert "".join(order) == "aabb" + "bbaa" + "aabb"
    assert {name: latency.count for name, latency in found.items()} == {"a": 6, "b": 6}
