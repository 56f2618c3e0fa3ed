"""Redirects: where a response leads, and which fields the next request keeps.

Pure. Layer: client.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..exceptions import (
    InvalidURL,
    RedirectRefused,
    TooManyRedirects,
    cut_url,
    hide_credentials,
    quote,
    redact,
)
from ..http11.semantics import FIRST_ORIGIN_ONLY, OF_THE_BODY
from ..urls import PORTS, SplitURL, join_location, split_url

if TYPE_CHECKING:
    from .fields import Fields

__all__ = [
    "REDIRECTS",
    "Redirect",
    "check_redirect",
    "redirect_target",
    "strip_body",
    "strip_secrets",
]

REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Statuses that redirect automatically (RFC 9110 §15.4). 300 and 304 do not."""


MAX_REDIRECT_URL = 65_536
"""Characters of a URL that a redirect may lead to: those of one line in http.client. Each byte
beyond ASCII becomes three, and a relative Location adds to the URL before it, so that a chain of
redirects could make a client send many times as much as it receives."""


class Redirect(NamedTuple):
    """The request that a redirect asks for."""

    url: SplitURL
    method: str
    keeps_body: bool
    crosses: bool
    """Whether the redirect leads to another origin."""
    upgrades: bool
    """Whether it leads from http to https on the same host, and both on their default ports."""


def redirect_target(
    status: int,
    method: str,
    url: SplitURL,
    locations: Sequence[str],
    *,
    allow_downgrade: bool = False,
) -> Redirect | None:
    """Return where a response to *method* *url* redirects, None if it does not (RFC 9110 §15.4).

    *locations* are the values of its Location fields. 303 turns the method into GET, and so do
    301 and 302 for POST; every other redirect keeps method and body. Raises ``RedirectRefused``
    for https → http unless *allow_downgrade*, for other schemes, for several different Locations,
    for an invalid one, and for one that leads to a URL of more than ``MAX_REDIRECT_URL``.
    """
    if status not in REDIRECTS or not any(locations):
        # An empty Location would lead to *url* itself, in a loop.
        return None
    location = locations[0]
    if any(other != location for other in locations):
        raise RedirectRefused(f"{len(locations)} different Locations: {_shown(locations)}")
    length = len(location)
    try:
        if length <= MAX_REDIRECT_URL:
            target = split_url(join_location(url.text, location))
            length = len(target.text) + len(target.fragment)
    except InvalidURL as exc:
        raise RedirectRefused(f"cannot follow Location {_shown([location])}: {exc}") from exc
    if length > MAX_REDIRECT_URL:
        raise RedirectRefused(
            f"a URL of {length} characters, at most {MAX_REDIRECT_URL} are followed: "
            f"Location {_shown([location])}"
        )
    if target.host == url.host.partition("%")[0]:
        # RFC 6874 §4: only this host knows an address's zone; the server means the same host.
        target = target._replace(host=url.host)
    if url.scheme == "https" and target.scheme == "http" and not allow_downgrade:
        raise RedirectRefused(
            f"{cut_url(redact(target.text))} is not encrypted, and {cut_url(url.text)} is: "
            "allow_downgrade=True follows it"
        )
    if not target.fragment:
        # RFC 9110 §10.2.2: the new URL inherits it.
        target = target._replace(fragment=url.fragment)
    changed = method != "HEAD" and (status == 303 or (status in (301, 302) and method == "POST"))
    return Redirect(
        # User and password of a Location come from the server, not from the caller.
        target._replace(userinfo=""),
        "GET" if changed else method,
        keeps_body=not (changed or status == 303),
        crosses=target.origin != url.origin,
        upgrades=(url.scheme, url.port) == ("http", PORTS["http"])
        and target.origin == ("https", url.host, PORTS["https"]),
    )


def check_redirect(redirect: Redirect, way: list[str], most: int, can_replay: bool) -> None:
    """Raise ``RedirectRefused`` for one redirect too many, or a body that is consumed.

    *way*: the URLs from the first to the one that redirects. *most*: ``max_redirects``.
    """
    if len(way) > most:
        way = [cut_url(url.partition("#")[0]) for url in [*way, redirect.url.text]]
        # The last ones show whether they form a loop; "history" has all of them.
        shown = [*way[:1], "...", *way[-3:]] if len(way) > 4 else way
        raise TooManyRedirects(f"more than max_redirects={most}: {' → '.join(shown)}")
    if redirect.keeps_body and not can_replay:
        raise RedirectRefused(
            f"the redirect to {cut_url(redirect.url.text)} needs the body again, but it came from "
            "an iterator or stream that has been consumed"
        )


def strip_secrets(fields: Fields) -> None:
    """Remove the fields that only the first origin may see, for the rest of the chain."""
    for name in FIRST_ORIGIN_ONLY:
        fields.discard(name)


def strip_body(fields: Fields) -> None:
    """Remove the fields that describe a body, when the next request has none."""
    for name in list(fields):
        lower = name.lower()
        if lower.startswith("content-") or lower in OF_THE_BODY:
            fields.discard(name)


def _shown(locations: Sequence[str]) -> str:
    hidden = [hide_credentials(redact(value)) for value in locations[:3]]
    return ", ".join(quote(value.encode("latin-1", "replace")) for value in hidden)
