"""Each kind of leak fails the test that leaves it, with a text that names it."""

from __future__ import annotations

import shutil
from pathlib import Path

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent

LEAKY = """
import asyncio, socket, pytest

KEPT = []

async def forever():
    await asyncio.Event().wait()

async def test_leaves_a_task():
    KEPT.append(asyncio.create_task(forever(), name="left over"))
    await asyncio.sleep(0)

async def test_leaves_a_socket():
    KEPT.append(socket.create_server(("127.0.0.1", 0)))

async def test_leaves_a_transport():
    async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0) as server:
        KEPT.append(await asyncio.open_connection(*server.sockets[0].getsockname()))

def test_leaves_a_socket_without_a_loop():
    KEPT.append(socket.create_server(("127.0.0.1", 0)))

async def test_never_awaits():
    forever()

async def test_never_awaits_in_a_cycle():
    cycle = [forever()]
    cycle.append(cycle)

async def test_raises_in_a_callback():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)

async def test_loses_the_exception_of_a_task():
    async def fail():
        raise KeyError("lost")
    asyncio.create_task(fail())
    await asyncio.sleep(0)

async def test_hangs():
    await forever()

@pytest.mark.may_leak("to see that it may")
async def test_may():
    KEPT.append(asyncio.create_task(forever()))
    KEPT.append(socket.create_server(("127.0.0.1", 0)))

@pytest.mark.may_leak
async def test_may_without_a_reason():
    pass

async def test_takes_its_loop_error(loop_errors):
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    assert type(loop_errors.pop()["exception"]) is ZeroDivisionError

async def test_closes_late():
    async with await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.close()

async def test_is_clean():
    await asyncio.sleep(0)
"""

EXPECTED = {
    "test_leaves_a_task": "- a task is still pending: <Task*left over*",
    "test_leaves_a_socket": "- a socket is still open: fd *AF_INET*('127.0.0.1', *not connected*",
    "test_leaves_a_transport": "- a socket is still open: fd *AF_INET*to ('127.0.0.1', *",
    "test_leaves_a_transport*": "- a transport was not closed: <*",
    "test_leaves_a_socket_without_a_loop": "- a socket is still open: fd *",
    "test_never_awaits": "*coroutine 'forever' was never awaited*",
    "test_never_awaits_in_a_cycle": "- RuntimeWarning: coroutine 'forever' was never awaited",
    "test_raises_in_a_callback": "- the loop's exception handler was called: *",
    "test_loses_the_exception_of_a_task": "*Task exception was never retrieved*",
    "test_hangs": "- it ran for more than 0.05 s and was cancelled; tasks:",
    "test_may_without_a_reason": "*write the reason: mark.may_leak(*",
}
CLEAN = ["test_may", "test_takes_its_loop_error", "test_closes_late", "test_is_clean"]


def test_each_kind_of_leak_fails_its_test(pytester):
    package = pytester.mkdir("tests")
    shutil.copytree(ROOT / "tests/support", package / "support")
    conftest = (ROOT / "tests/conftest.py").read_text()
    assert "\nTEST_SECONDS = 60\n" in conftest
    conftest = conftest.replace("\nTEST_SECONDS = 60\n", "\nTEST_SECONDS = 0.05\n")
    (package / "conftest.py").write_text(conftest)
    (package / "__init__.py").touch()
    (package / "test_leaky.py").write_text(LEAKY)
    shutil.copy(ROOT / "pyproject.toml", pytester.path)

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rEfp", "--tb=short")

    report = result.stdout.str()
    # pytest-asyncio shows no id where there is only one loop.
    for where in ("[asyncio]", "[uvloop]") if "[uvloop]" in report else ("",):
        for name, text in EXPECTED.items():
            title = name if name.endswith("without_a_loop") else name + where.replace("[", "[[]")
            result.stdout.fnmatch_lines([f"*_ *{title} _*", text])
        for name in CLEAN:
            assert f"PASSED tests/test_leaky.py::{name}{where}\n" in report
            assert f"ERROR at teardown of {name}{where} " not in report
    assert result.ret == 1
