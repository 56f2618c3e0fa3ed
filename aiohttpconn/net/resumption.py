"""TLS session resumption: which sessions are resumed, with which servers, and for how long.

A handshake that resumes an earlier session sends no certificate and no signature.
Event loops take no session, but all they want of their SSLContext is one call of ``wrap_bio``,
which does take one. So a ``ResumingContext`` stands in for the context during one handshake: in
all but ``wrap_bio`` it is that context, for ``isinstance`` too. The alternatives are worse: a
subclass instance per handshake is a new SSL_CTX (0.2 ms), and the context's own
``sslobject_class`` belongs to its owner, who may use it elsewhere at the same time.

Native code that took the stand-in for a context would read its memory as one, and crash. So only
the ``start_tls`` of asyncio and uvloop (``LOOPS``) get it, any other gets the context itself; and
it passes for a context only until it was used, because transports give it away afterwards.

OpenSSL resumes any session it is given, and verifies neither certificate nor name again. Hence:

- Sessions belong to the context that made them, and die with it.
- A session is only for the origin that it was made with (server name, address, and the way to
  it: see dial.py), and only under the same settings. A session made without verification is
  never used where verification is on, not even by the same context after a change of settings.
- Only full handshakes make sessions. A session is used for ``SESSION_SECONDS`` at most, and never
  longer than the certificate is valid: the certificate is verified again at least that often.
- A session is dropped after a failed handshake, when its TLS connection breaks, and when a
  connection that resumed it ends before a byte of a response. In the first and last case resumption
  rests for ``BLOCK_SECONDS``, so the connect or the request that is made again does without.
- A context that makes TLS objects in its own way may verify in its own way: it resumes nothing.
- A resumed connection is the client's that made the session. ``ssl`` does not tell which
  certificate a context has loaded, or whether the server has asked for one. So a session is kept
  only if the server has provably not asked: see ``_was_not_asked``.

Within that time a session serves any number of connections. RFC 8446 §C.4 advises against it,
because an eavesdropper can tell that they belong to the same client. But getting a session out of
``ssl`` and in again costs as much as resumption saves: OpenSSL writes and parses it each time,
certificate included. Single use would gain nothing, nor serve connections opened at the same time.

A TLS 1.3 server sends the session after the handshake, so it is taken as late as possible: when
its connection closes politely, or when another connection is opened beside it, which happens in
the same thread. The hot path knows nothing about it. Layer: net.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, TypeAlias, cast

with suppress(ImportError):  # nothing here runs in a Python without it
    import ssl

__all__ = ["drop_session", "keep_session", "resuming", "suspect_session"]

SESSION_SECONDS = 3600.0
"""Seconds that a session may be used, whatever the server allows (RFC 8446: seven days)."""

BLOCK_SECONDS = 60.0
"""Seconds without resumption after a handshake that failed with a session, or a resumed connection
that ended before a byte of a response."""

MAX_ORIGINS = 256
"""Origins whose sessions a context keeps, a few KiB each; the least recently used is dropped."""

LOOPS = frozenset({"asyncio.base_events", "uvloop.loop"})
"""Modules whose ``start_tls`` wants nothing of a context but ``wrap_bio``."""

_now = time.monotonic

_Key: TypeAlias = tuple[Hashable, ...]
"""An origin, the name that is verified, and the settings that decide how."""


class _Entry:
    """The state of one origin: its session, or a connection that may have one, or neither."""

    __slots__ = ("candidate", "cipher", "loop", "session", "until")

    def __init__(self) -> None:
        self.session: ssl.SSLSession | None = None
        # The session's cipher, up to TLS 1.2: servers abort if it is not offered, too.
        self.cipher: str | None = None
        # The session is used until then; if there is none, none is looked for until then.
        self.until = 0.0
        # A live connection that made a full handshake, and the loop that may ask it.
        self.candidate: weakref.ref[ssl.SSLObject] | None = None
        self.loop: weakref.ref[asyncio.AbstractEventLoop] | None = None


class _Sessions:
    """The sessions that one context has made. Connections of many threads may share it."""

    def __init__(self) -> None:
        # Reentrant: the garbage collector may run a finalizer that closes a connection.
        self._lock = threading.RLock()
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()

    def find(
        self, key: _Key, context: ssl.SSLContext, loop: asyncio.AbstractEventLoop
    ) -> ssl.SSLSession | None:
        """Return the session that *context* may resume, or None."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            if _now() < entry.until:
                offered = entry.cipher is None or entry.cipher in _ciphers(context)
                return entry.session if offered else None
            entry.session = None
            candidate = entry.candidate() if entry.candidate is not None else None
            if candidate is None or entry.loop is None or entry.loop() is not loop:
                return None
            # The connection is asked once. A later session is kept when the connection closes.
            entry.candidate = None
        self.keep(key, candidate)
        return entry.session

    def watch(self, key: _Key, ssl_object: ssl.SSLObject, loop: asyncio.AbstractEventLoop) -> None:
        """Remember a connection of *loop* that has made a full handshake."""
        with self._lock:
            entry = self._entry(key)
            if entry.candidate is None or entry.candidate() is None:
                entry.candidate = weakref.ref(ssl_object)
                entry.loop = weakref.ref(loop)

    def keep(self, key: _Key, ssl_object: ssl.SSLObject) -> None:
        """Keep the session of *ssl_object*, if it has one and the origin needs one."""
        with self._lock:
            if _now() < self._entry(key).until:
                return
        try:
            finished = ssl_object.get_channel_binding("tls-unique")
            if finished is None or vars(ssl_object).get(_FINISHED) != finished:
                return
            session = ssl_object.session
            # No id: the server has sent no ticket, or not yet.
            useful = session is not None and session.id
            seconds = _seconds_left(ssl_object, session) if useful else 0.0  # type: ignore[arg-type]
            name, version, _ = ssl_object.cipher() or ("", "", 0)
            cipher = None if version == "TLSv1.3" else name
        except (ValueError, OSError, ImportError):
            # OpenSSL or Python cannot parse it, or the interpreter ends: not worth an error.
            return
        if seconds > 0:
            with self._lock:
                entry = self._entry(key)
                entry.session, entry.until, entry.candidate = session, _now() + seconds, None
                entry.cipher = cipher

    def drop(self, key: _Key, session: ssl.SSLSession | None = None) -> None:
        """Forget the origin's session; if *session* is given, only if it is that one."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or (session is not None and entry.session is not session):
                return
            if entry.session is None:
                entry.candidate = None  # resumption stays blocked, if it is
            else:
                del self._entries[key]

    def block(self, key: _Key) -> None:
        """Resume nothing with this origin for some time."""
        with self._lock:
            entry = self._entry(key)
            entry.session = entry.candidate = None
            entry.until = _now() + BLOCK_SECONDS

    def _entry(self, key: _Key) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry()
            if len(self._entries) > MAX_ORIGINS:
                self._entries.popitem(last=False)
        return entry


def _seconds_left(ssl_object: ssl.SSLObject, session: ssl.SSLSession) -> float:
    """Return how long *session* may be used: until it, or the server's certificate, expires."""
    now = time.time()
    seconds = min(SESSION_SECONDS, session.time + session.timeout - now)
    # {} if nothing was verified: then there is nothing to verify again.
    expires = (ssl_object.getpeercert() or {}).get("notAfter")
    if isinstance(expires, str):
        seconds = min(seconds, ssl.cert_time_to_seconds(expires) - now)
    return seconds


def _ciphers(context: ssl.SSLContext) -> set[str]:
    return {cipher["name"] for cipher in context.get_ciphers()}


def _settings(context: ssl.SSLContext) -> tuple[Any, ...]:
    """Return the visible settings that decide how *context* verifies and which TLS it speaks."""
    return (
        context.verify_mode,
        context.check_hostname,
        context.hostname_checks_common_name,
        context.verify_flags,
        context.options,
        context.minimum_version,
        context.maximum_version,
        context.security_level,
        *context.cert_store_stats().values(),
    )


_HEADER = 5
"""Bytes of a record's header: type, version, length (RFC 8446 §5.1)."""

_CLIENT_KEY_EXCHANGE = 16
_CHANGE_CIPHER_SPEC = b"\x14\x03\x03\0\1\1"


def _was_not_asked(ssl_object: ssl.SSLObject, flight: bytes) -> bool:
    """Whether a full handshake shows that the server has not asked for a client certificate.

    *flight* is the last one of the client. It would begin with a Certificate message, be that an
    empty one. Up to TLS 1.2 that can be read: ClientKeyExchange comes first. In TLS 1.3 it is
    encrypted, and its length tells: it is a record with Finished, and with nothing else (RFC 8446
    §4.4.4, §5.2), perhaps behind the ChangeCipherSpec of §D.4.
    """
    name, _, _ = ssl_object.cipher() or ("", "", 0)
    if ssl_object.version() != "TLSv1.3":
        return flight[:1] == b"\x16" and flight[_HEADER : _HEADER + 1] == bytes(
            [_CLIENT_KEY_EXCHANGE]
        )
    digest = 48 if name.endswith("SHA384") else 32
    finished = 4 + digest + 1 + 16  # its header and digest; the type and the tag of the record
    record = b"\x17\x03\x03" + finished.to_bytes(2, "big")
    flight = flight.removeprefix(_CHANGE_CIPHER_SPEC)
    return flight.startswith(record) and len(flight) == _HEADER + finished


# Attributes that hold a context's sessions, and the origin of a TLS object. A session refers to
# its context: in a dictionary of ours, weak or not, both would live for ever. As an attribute of
# the context they form a cycle, which the garbage collector frees.
_SESSIONS = "_aiohttpconn_sessions"
_ORIGIN = "_aiohttpconn_origin"

# The attribute of a TLS object that holds the client's Finished message of a handshake in which the
# server has not asked for a certificate. A later handshake on the connection, in which it may have
# asked (renegotiation, or authentication after the handshake), has another one.
_FINISHED = "_aiohttpconn_finished"


class ResumingContext:
    """A stand-in for an ``ssl.SSLContext`` that resumes a session in one handshake.

    Connections to a different *origin* never share a session. After the handshake, call
    ``finished``, ``failed`` or, if it was cancelled, ``abandoned``.
    """

    __slots__ = (
        "_context",
        "_flight",
        "_key",
        "_loop",
        "_offered",
        "_origin",
        "_recorded",
        "_sessions",
        "_used",
    )

    def __init__(
        self, context: ssl.SSLContext, origin: Hashable, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._context = context
        self._sessions: _Sessions = vars(context).setdefault(_SESSIONS, _Sessions())
        self._origin = origin
        self._loop = loop
        self._used = False
        self._key: _Key | None = None
        self._offered: ssl.SSLSession | None = None
        # The TLS object of the handshake, while its flights are recorded, and the last of them.
        self._recorded: ssl.SSLObject | None = None
        self._flight = b""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return ResumingContext if self._used else type(self._context)

    def __repr__(self) -> str:
        return f"<stand-in for {self._context!r}, which is ssl_object.context>"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Mirror ``ssl.SSLContext.wrap_bio``, and find *session*."""
        wrap = self._context.wrap_bio
        if self._used or server_side or session is not None:
            # Not our handshake: transports give their context away as "sslcontext".
            return wrap(incoming, outgoing, server_side, server_hostname, session)
        self._used = True
        settings = _settings(self._context)
        key = (self._origin, server_hostname, settings)
        offered = self._sessions.find(key, self._context, self._loop)
        made = wrap(incoming, outgoing, server_side, server_hostname, offered)
        if _settings(self._context) != settings:
            # Another thread has changed the settings; *made* may have the old or the new ones.
            return wrap(incoming, outgoing, server_side, server_hostname)
        self._key, self._offered = key, offered
        vars(made)[_ORIGIN] = (self._sessions, key)
        self._record_flights(made, outgoing)
        return made

    def _record_flights(self, made: ssl.SSLObject, outgoing: ssl.MemoryBIO) -> None:
        """Keep a copy of the bytes that the handshake of *made* writes last."""
        do_handshake = made.do_handshake

        def recorded() -> None:
            try:
                do_handshake()
            finally:
                if outgoing.pending:
                    self._flight = outgoing.read()
                    outgoing.write(self._flight)

        self._recorded = made
        vars(made)["do_handshake"] = recorded

    def _recorded_flight(self) -> bytes:
        """End the recording; return its last flight."""
        flight, made = self._flight, self._recorded
        self._flight, self._recorded = b"", None
        if made is not None:
            del vars(made)["do_handshake"]
        return flight

    def finished(self, ssl_object: ssl.SSLObject) -> None:
        """Record that the handshake has succeeded."""
        flight = self._recorded_flight()
        if self._key is None or ssl_object.session_reused:
            return
        if self._offered is not None:
            # The server has forgotten the session.
            self._sessions.drop(self._key, self._offered)
        if _was_not_asked(ssl_object, flight):
            vars(ssl_object)[_FINISHED] = ssl_object.get_channel_binding("tls-unique")
            self._sessions.watch(self._key, ssl_object, self._loop)

    def abandoned(self) -> None:
        """Drop the session of a cancelled handshake: it may have caused a timeout."""
        self._recorded_flight()
        if self._key is not None and self._offered is not None:
            self._sessions.drop(self._key, self._offered)

    def failed(self) -> bool:
        """Block resumption if the failed handshake used a session, and return whether it did."""
        self._recorded_flight()
        if self._key is None or self._offered is None:
            return False
        self._sessions.block(self._key)
        return True


def resuming(
    context: ssl.SSLContext, origin: Hashable, loop: asyncio.AbstractEventLoop
) -> ResumingContext | None:
    """Return a stand-in for *context* in one handshake; None if it cannot resume there."""
    # By module: code that replaces ssl.SSLContext itself verifies in its own way, too.
    makers = context.wrap_bio, context.sslobject_class
    if any(getattr(maker, "__module__", None) != "ssl" for maker in makers):
        return None
    return ResumingContext(context, origin, loop) if _only_wraps(loop) else None


def _only_wraps(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the ``start_tls`` of *loop* is one that wants nothing of a context but ``wrap_bio``.

    A subclass may have its own, and a package may have put its own on the loop or on the class. A
    function's globals are those of the module that it is written in, whatever name it was given.
    """
    function = getattr(loop.start_tls, "__func__", None)
    return getattr(function, "__globals__", {}).get("__name__") in LOOPS


def keep_session(ssl_object: object) -> None:
    """Let later connections resume the session of *ssl_object*, whose connection closes now.

    *ssl_object* is ``transport.get_extra_info("ssl_object")`` of a connection without errors. If
    no ``ResumingContext`` has made it, nothing happens.
    """
    made_for = getattr(ssl_object, _ORIGIN, None)
    if made_for is not None:
        made = cast("ssl.SSLObject", ssl_object)
        if not made.session_reused:
            sessions, key = made_for
            sessions.keep(key, made)


def suspect_session(ssl_object: object) -> None:
    """Resume nothing for some time with the server of *ssl_object*, if that was resumed.

    Its connection has ended without a byte of a response. The session may be why: the server takes
    it, and cannot go on with it.
    """
    made_for = getattr(ssl_object, _ORIGIN, None)
    if made_for is not None and cast("ssl.SSLObject", ssl_object).session_reused:
        sessions, key = made_for
        sessions.block(key)


def drop_session(ssl_object: object, exc: BaseException) -> None:
    """Forget the session of *ssl_object*, whose connection *exc* has ended.

    Only an error of TLS itself has this effect: RFC 5246 §7.2.2 demands it, RFC 8446 §6.2
    advises it.
    """
    made_for = getattr(ssl_object, _ORIGIN, None)
    if made_for is not None and isinstance(exc, ssl.SSLError):
        sessions, key = made_for
        sessions.drop(key)
