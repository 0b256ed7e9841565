"""Deadlines by one timer: each is heard of in time, a call that is over is not, and one that fails harms no other."""

import asyncio

from gateway.deadlines import LATE_S, Deadlines


async def test_each_deadline_is_heard_of_once_and_only_while_its_call_is_under_way() -> None:
    heard: list[str] = []
    done = asyncio.Event()
    deadlines = Deadlines()

    def says(name: str) -> None:
        heard.append(name)

    def fails() -> None:
        heard.append("fails")
        raise ValueError("of this one alone")

    def strikes() -> None:
        heard.append("strikes")
        deadlines.strike(struck)

    def struck() -> None:
        says("struck in the same moment")

    def over() -> None:
        says("over")
        done.set()

    def late() -> None:
        says("late")
        done.set()

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["exception"]))
    try:
        for expire, seconds in ((fails, 0.0), (strikes, 0.0), (struck, 0.0), (over, 0.0), (late, 3 * LATE_S)):
            deadlines.set(expire, seconds)
        deadlines.strike(over)
        deadlines.strike(over)
        await asyncio.wait_for(done.wait(), 5)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert heard == ["fails", "strikes", "late"]
    assert [str(item) for item in complaints] == ["of this one alone"]
    # It rests when nothing is under way, and begins again.
    await asyncio.sleep(2 * LATE_S)
    done.clear()
    deadlines.set(over, 0.0)
    await asyncio.wait_for(done.wait(), 5)
    assert heard[-1] == "over"
