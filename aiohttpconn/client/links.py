"""Link fields (RFC 8288): the links that a response's head announces. Pure. Layer: client."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urljoin

from ..http11.grammar import TOKEN

__all__ = ["parse_links"]

MAX_LINKS = 1000
"""Links of a response that are read."""

MAX_LENGTH = 4 * 1024 * 1024
"""Characters of all their URLs, *base* and reference: each may be as long as *base*, which a
redirect may have made long."""

# RFC 8288 §3: link-value = "<" URI-Reference ">" *( OWS ";" OWS link-param ), between commas;
# link-param = token BWS [ "=" BWS ( token / quoted-string ) ]
_LINK = re.compile(r"[\t ,]*+<([^<>]*+)>")
_PARAM = re.compile(
    rf"[\t ]*+;[\t ]*+(?:({TOKEN.pattern})[\t ]*+"
    r'(?>(?:=[\t ]*+(?:"((?>(?:[^"\\]|\\.)*))"|([^;,"]*+)))?))?'
)
_ESCAPE = re.compile(r"\\(.)")


def parse_links(values: Iterable[str], base: str) -> dict[str, dict[str, str]]:
    """Return the links of all Link fields by their ``rel``, each with its parameters.

    ``url`` is its absolute URL, resolved against *base*. The key of a link without ``rel`` is its
    URL. Of several links with the same ``rel`` the first counts. Reading a field stops at its
    first syntax error, and reading all of them at ``MAX_LINKS`` and ``MAX_LENGTH``.
    """
    found: dict[str, dict[str, str]] = {}
    base = base.partition("#")[0]
    links_left, length_left = MAX_LINKS, MAX_LENGTH
    for value in values:
        at = 0
        while match := _LINK.match(value, at):
            at = match.end()
            links_left -= 1
            length_left -= len(base) + len(match[1])
            if links_left < 0 or length_left < 0:
                return found
            link: dict[str, str] = {}
            while param := _PARAM.match(value, at):
                at = param.end()
                name, quoted, plain = param.groups("")
                if name:
                    # RFC 8288 §3: the first of several counts.
                    link.setdefault(name.lower(), _ESCAPE.sub(r"\1", quoted) or plain.strip())
            try:
                link["url"] = urljoin(base, match[1])
            except ValueError:
                continue
            for rel in link["rel"].lower().split() if "rel" in link else (link["url"],):
                found.setdefault(rel, link)
    return found
