"""Ask an ``Auth``: await it, and one request at a time where its class says so.

An ``Auth`` may make requests itself, perhaps with the client that asks it. Such a request must not
ask the same ``Auth``: that would never end, or wait for the lock that its own maker holds. So a
context variable has the objects that are being asked; tasks that are started meanwhile inherit it.
The caller of ``ask`` must hold no connection: the ``Auth``, or the request before it in the line
for the lock, may need the last one of the pool. Layer: client.
"""

from __future__ import annotations

from contextvars import ContextVar
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any

from .schemes import lock_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .schemes import Auth

__all__ = ["ask", "is_asked", "may_wait"]


class _Question:
    """An ``Auth`` that is being asked, and the question within which it is, if any."""

    __slots__ = ("auth", "open", "outer")

    def __init__(self, auth: Auth, outer: _Question | None) -> None:
        self.auth = auth
        self.outer = outer
        # A task that outlives the question, and has inherited it, must see that it has ended.
        self.open = True


_question: ContextVar[_Question | None] = ContextVar("_question", default=None)


def is_asked(auth: Auth) -> bool:
    """Whether a method of *auth* is running in this context: the request is its own."""
    question = _question.get()
    while question is not None:
        if question.open and question.auth is auth:
            return True
        question = question.outer
    return False


def may_wait(auth: Auth) -> bool:
    """Whether asking *auth* about a response may wait, so that no connection must be held."""
    return auth.serialized or iscoroutinefunction(auth.challenged)


def ask(auth: Auth, method: Callable[..., Any], *arguments: Any) -> Any:
    """Call *method* of *auth*; return its result, or an awaitable of it."""
    if auth.serialized:
        return _ask_in_turn(auth, method, arguments)
    answer = method(*arguments)
    return _awaited(auth, answer) if isawaitable(answer) else answer


async def _ask_in_turn(auth: Auth, method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    async with lock_of(auth):
        answer = method(*arguments)
        return await _awaited(auth, answer) if isawaitable(answer) else answer


async def _awaited(auth: Auth, answer: Awaitable[Any]) -> Any:
    outer = _question.get()
    question = _Question(auth, outer)
    _question.set(question)
    try:
        return await answer
    finally:
        question.open = False
        # Not by a token: a coroutine that is closed runs this in another context.
        _question.set(outer)
