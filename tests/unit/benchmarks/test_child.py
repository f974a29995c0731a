import psutil
import pytest
from harness.child import ChildError, child


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A child that answers with what it was told, and fails when it is told to."""
    (tmp_path / "benchmark_echo.py").write_text(
        "import asyncio\n"
        "from harness.child import serve\n"
        "async def handle(command):\n"
        "    if command.get('fail'):\n"
        "        raise ValueError('as you wish')\n"
        "    return command\n"
        "asyncio.run(serve(handle))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "benchmark_echo"


async def test_a_child_answers_and_ends_with_its_block(module):
    async with child(module) as process:
        pid = process.pid
        assert await process.ask(size=3) == {"size": 3}
    assert not psutil.pid_exists(pid)


async def test_a_failed_command_is_told_and_the_child_goes_on(module):
    async with child(module) as process:
        with pytest.raises(ChildError, match="as you wish"):
            await process.ask(fail=True)
        assert await process.ask(size=4) == {"size": 4}


async def test_a_paused_child_uses_nothing_answers_later_and_still_ends(module):
    async with child(module) as process:
        process.pause()
        status = psutil.Process(process.pid)
        while status.status() != psutil.STATUS_STOPPED:
            pass
        process.resume()
        assert await process.ask(size=5) == {"size": 5}
        process.pause()
    assert not psutil.pid_exists(process.pid)


async def test_a_child_that_cannot_start_is_an_error():
    with pytest.raises(ChildError, match="ended with 1"):
        async with child("harness.no_such_module"):
            pass
