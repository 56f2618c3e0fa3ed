"""The arguments of ``python -m aiohttpconn``: curl's names, as far as they go."""

from __future__ import annotations

import argparse
import os
import platform
import re
import ssl
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..exceptions import InvalidURL
from ..http11.grammar import check_field, check_method
from .exits import (
    MALFORMED_URL,
    NOT_CONNECTED,
    PROXY_NOT_RESOLVED,
    READ_ERROR,
    UNSUPPORTED_PROTOCOL,
    USAGE,
    Failed,
)
from .urls import Location, locate

__all__ = ["PROG", "Options", "parse"]

PROG = "python -m aiohttpconn"

PROXY_PORTS = {"http": 1080, "https": 443}
"""Where a proxy is by default: curl's numbers."""

DESCRIPTION = "Fetch URL and write the body to standard output. `demo` shows the package at work."

EPILOG = """\
examples:
  python -m aiohttpconn https://example.org/
  python -m aiohttpconn -i -H 'Accept: text/plain' localhost:8000/page
  python -m aiohttpconn -d name=Ada -d @more.txt http://localhost:8000/form
  python -m aiohttpconn -v -o page.html -x http://user:password@proxy:3128 https://example.org/
  python -m aiohttpconn demo

Options mean what they mean in curl, and the exit code is the one that curl would give:
6 name not resolved, 7 not connected, 22 an HTTP error (with -f), 28 timeout, 60 certificate.
Redirects are not followed, and the environment names no proxy: both come with the client layer.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. ``fields`` are those of ``-H``, ``removed`` the names it takes away."""

    url: Location
    proxy: Location | None
    method: str
    fields: list[tuple[str, str]]
    removed: frozenset[str]
    body: bytes | None
    output: str
    head_only: bool
    include: bool
    verbose: bool
    fail: bool
    insecure: bool
    cafile: str | None
    max_time: float | None

    @property
    def asks_proxy(self) -> bool:
        """Whether the proxy itself is asked for the URL, not for a tunnel."""
        return self.proxy is not None and self.url.scheme == "http"


def parse(argv: Sequence[str]) -> Options:
    """Return the options; ``Failed`` or ``SystemExit`` (with curl's codes) for what is wrong."""
    parser = _parser()
    if not argv:
        parser.print_help(sys.stderr)
        raise SystemExit(USAGE)
    args = parser.parse_args(argv)
    if args.version:
        print(_versions())
        raise SystemExit(0)
    if args.url is None:
        parser.error("no URL given")
    if args.head and args.data:
        parser.error("-I asks for the head, -d sends a body: only one of them, please")
    method = args.request or ("HEAD" if args.head else "POST" if args.data else "GET")
    return Options(
        url=_url(args.url),
        proxy=_proxy(args.proxy) if args.proxy else None,
        method=method,
        fields=[(name, value) for name, value in args.header if value is not None],
        removed=frozenset(name.lower() for name, value in args.header if value is None),
        body=b"&".join(_part(*part) for part in args.data) if args.data else None,
        output=args.output,
        head_only=args.head,
        include=args.include,
        verbose=args.verbose,
        fail=args.fail,
        insecure=args.insecure,
        cafile=args.cacert,
        max_time=args.max_time or None,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} [options] URL\n       {PROG} demo",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("url", nargs="?", metavar="URL", help="http:// or https://; without either, http://")
    add("-X", "--request", metavar="METHOD", type=_method, help="use this method")
    add(
        *("-H", "--header"),
        metavar="FIELD",
        action="append",
        default=[],
        type=_field,
        help="send 'Name: value'; 'Name:' leaves a field out, 'Name;' sends it empty",
    )
    add(
        *("-d", "--data"),
        metavar="DATA",
        dest="data",
        action="append",
        default=[],
        type=lambda text: ("text", text),
        help="POST this as a form; several are joined by '&'; @FILE reads a file without its "
        "line ends, @- standard input",
    )
    add(
        "--data-binary",
        metavar="DATA",
        dest="data",
        action="append",
        type=lambda text: ("binary", text),
        help="the same, but a file is sent as it is",
    )
    add(
        "--data-raw",
        metavar="DATA",
        dest="data",
        action="append",
        type=lambda text: ("raw", text),
        help="the same, but @ means nothing",
    )
    add("-o", "--output", metavar="FILE", default="-", help="write to FILE; - is standard output")
    add("-i", "--include", action="store_true", help="write the response's head, too")
    add("-I", "--head", action="store_true", help="ask for the head only, with HEAD, and write it")
    add("-v", "--verbose", action="store_true", help="tell on standard error what happens")
    add("-f", "--fail", action="store_true", help="end with 22 for a status of 400 or more")
    add("-k", "--insecure", action="store_true", help="do not verify the server's certificate")
    add("--cacert", metavar="FILE", help="trust the authorities in this PEM file instead")
    add(
        *("-x", "--proxy"),
        metavar="URL",
        help="[http[s]://][user:password@]host[:port], port 1080 by default (https: 443)",
    )
    add("-m", "--max-time", metavar="SECONDS", type=_seconds, help="give up after this time")
    add("-V", "--version", action="store_true", help="show versions, and end")
    return parser


def _versions() -> str:
    try:
        from uvloop._version import __version__ as version

        loop = f"uvloop {version}"
    except ImportError:
        loop = "uvloop not installed"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"aiohttpconn {__version__} ({python}, {ssl.OPENSSL_VERSION}, {loop})"


def _url(text: str) -> Location:
    try:
        url = locate(text)
    except InvalidURL as exc:
        raise Failed(MALFORMED_URL, str(exc)) from exc
    if url.scheme not in ("http", "https"):
        raise Failed(UNSUPPORTED_PROTOCOL, f"{url.scheme!r} is not supported, http and https are")
    return url


def _proxy(text: str) -> Location:
    try:
        proxy = locate(text, ports=PROXY_PORTS)
    except InvalidURL as exc:
        raise Failed(PROXY_NOT_RESOLVED, f"the proxy: {exc}") from exc
    if proxy.scheme not in ("http", "https"):
        raise Failed(NOT_CONNECTED, f"the proxy: {proxy.scheme!r} is not supported")
    return proxy


def _method(text: str) -> str:
    try:
        check_method(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return text


def _field(text: str) -> tuple[str, str | None]:
    """Return the name and value of a ``-H``; the value is None if the field shall not be sent."""
    # The bytes that were typed, whatever their encoding: as a str for the head, ISO-8859-1.
    text = os.fsencode(text).decode("latin-1")
    name, colon, value = text.partition(":")
    value = value.strip("\t ")
    if not colon:
        name, semicolon, rest = text.partition(";")
        if not semicolon or rest.strip("\t "):
            raise argparse.ArgumentTypeError(f"expected 'Name: value', got {text!r}")
    try:
        check_field(name, value)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return name, None if colon and not value else value


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+", text):
        raise argparse.ArgumentTypeError(f"expected seconds, got {text!r}")
    return float(text)


def _part(kind: str, text: str) -> bytes:
    """Return what one ``-d``, ``--data-binary`` or ``--data-raw`` stands for."""
    if kind == "raw" or not text.startswith("@"):
        return os.fsencode(text)
    try:
        if text == "@-":
            data = sys.stdin.buffer.read() if sys.stdin is not None else b""
        else:
            data = Path(text[1:]).read_bytes()
    except OSError as exc:
        raise Failed(READ_ERROR, f"cannot read {text[1:]!r}: {exc.strerror or exc}") from exc
    # As curl does: a file that ends with a line end is no value that does.
    return data if kind == "binary" else data.translate(None, b"\r\n\0")
