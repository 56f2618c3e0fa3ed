"""The catalogue's answers (rows H and F) to clients and pools: they hold as for a connection.

``test_security.py`` and ``test_contract.py`` give each answer to a connection of one's own. Here
each meets every way in which a client and a pool send a request: the same is delivered or refused,
with the same error, and the request after it, or beside it on a shared connection, gets its own
answer.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from aiohttpconn import Client, ConnectionPool, HTTPException, IncompleteRead, Limits, Timeout

from .. import test_contract, test_security
from ..support import ScriptedServer
from ..support.answers import Answers
from ..test_contract import Ok, Refused, Row

FAILS = {
    name: Row(wire, Refused(kind, text, None if kind is not IncompleteRead else b""))
    for name, (wire, kind, text) in test_security.FAILS.items()
}
ACCEPTED = {
    name: Row(wire, Ok(reason=reason, fields=fields))
    for name, (wire, reason, fields) in test_security.ACCEPTED.items()
}
ROWS = {**test_contract.TABLE, **FAILS, **ACCEPTED}

LIMITS = {"limits": Limits(), "timeout": Timeout(read=30)}
"""A connection's: those of a client allow more fields."""


STRAY = {
    name
    for name, row in ROWS.items()
    if isinstance(row.lenient, Ok) and not row.lenient.reused and not row.end
}
"""Answers with bytes behind them. On a shared connection they begin the next one (F22), and may
break it; they are never taken for its body."""


class Answer:
    def __init__(self, raw, body):
        self.status, self.reason, self.body = raw.status, raw.reason, body
        self.getheader = raw.getheader


async def client_get(client, row, url):
    response = await client.request(row.method, url, content=row.body)
    return Answer(response.raw, response.content)


async def client_stream(client, row, url):
    async with client.stream(row.method, url, content=row.body) as response:
        body = b""
        try:
            async for piece in response.iter_bytes():
                body += piece
        except IncompleteRead as exc:
            exc.partial = body + exc.partial  # the pieces were delivered before it
            raise
        return Answer(response.raw, body)


async def pool_request(pool, row, url):
    response = await pool.request(row.method, url, row.body)
    try:
        return Answer(response, await response.read())
    finally:
        response.close()


async def pool_lease(pool, row, url):
    async with pool.connection(url) as conn:
        await conn.request(row.method, "/", row.body)
        response = await conn.getresponse()
        return Answer(response, await response.read())


WAYS = {
    "Client.request": (Client, client_get, {"trust_env": False}),
    "Client.stream": (Client, client_stream, {"trust_env": False}),
    "ConnectionPool.request": (ConnectionPool, pool_request, {}),
    "ConnectionPool.connection": (ConnectionPool, pool_lease, {}),
}
AGAIN = Row(b"", Ok(body=b"again"))


def check(verdict, outcome):
    """Assert that *outcome*, an ``Answer`` or an exception, is what *verdict* says."""
    if isinstance(verdict, Refused):
        assert isinstance(outcome, HTTPException)
        assert isinstance(outcome, verdict.kind)
        assert verdict.text in str(outcome)
        if verdict.partial:
            assert outcome.partial == verdict.partial
        return
    if isinstance(outcome, Exception):
        raise outcome
    assert (outcome.status, outcome.reason) == (verdict.status, verdict.reason)
    assert {name: outcome.getheader(name) for name in verdict.fields} == verdict.fields
    assert outcome.body == verdict.body


async def outcome_of(made):
    try:
        return await made
    except HTTPException as exc:
        return exc


async def answers_by(way, piece=0):
    kind, send, options = WAYS[way]
    for name, row in ROWS.items():
        if piece and len(row.wire) > 300:
            continue
        pieces = [row.wire] if not piece else [row.wire[i : i + 1] for i in range(len(row.wire))]
        answers = Answers(pieces, end=row.end, head_only=row.body is not None)
        async with ScriptedServer(answers) as server, kind(**options, **LIMITS) as sender:
            try:
                check(row.lenient, await outcome_of(send(sender, row, server.url)))
                await answers.sent.wait()
                check(AGAIN.lenient, await outcome_of(send(sender, AGAIN, server.url)))
                reused = isinstance(row.lenient, Ok) and row.lenient.reused
                assert server.connections == (1 if reused else 2)
            except BaseException as exc:
                exc.add_note(f"row {name}")
                raise


@pytest.mark.parametrize("way", ["Client.request", "ConnectionPool.request"])
async def test_every_answer_to_a_client_and_a_pool(way):
    await answers_by(way)


@pytest.mark.siege
@pytest.mark.parametrize("piece", [0, 1], ids=["whole", "byte-by-byte"])
@pytest.mark.parametrize("way", WAYS)
async def test_every_answer_by_every_way(way, piece):
    await answers_by(way, piece)


async def test_every_answer_beside_others_on_a_shared_connection():
    """One request gets it, the others theirs: on the same connection, or on another one."""
    for name, row in ROWS.items():
        if row.body is not None or row.method != "GET":
            continue
        answers = Answers([row.wire], end=row.end)
        async with ScriptedServer(answers) as server:
            async with Client(pipelining=4, limit_per_host=1, trust_env=False, **LIMITS) as client:
                sent = (outcome_of(client_get(client, row, server.url)) for _ in range(4))
                first, *others = await asyncio.gather(*sent)
                try:
                    # Not a byte of an answer: all of them are sent again.
                    check(row.lenient if row.wire else AGAIN.lenient, first)
                    for other in others:
                        if name in STRAY and isinstance(other, HTTPException):
                            continue
                        check(AGAIN.lenient, other)
                except BaseException as exc:
                    exc.add_note(f"row {name}")
                    raise


ROOT = Path(__file__).parent.parent.parent


def test_every_row_of_the_catalogue_has_a_test_that_cites_it():
    from ..test_docs import cited_rows

    page = (ROOT / "docs/topics/attacks.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| ([EHFTC][0-9]+) \|.*\| ([^|]+) \|$", page)
    assert len(rows) >= 80
    for row, files in rows:
        named = re.findall(r"`((?:attack/)?test_\w+\.py)`", files)
        cited = [cited_rows((ROOT / "tests" / name).read_text(encoding="utf-8")) for name in named]
        assert any(row in found for found in cited), row
