"""The arguments of ``python -m aiohttpconn``: curl's names, as far as they go."""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import __version__
from ..exceptions import InvalidURL
from ..http11.grammar import check_field, check_method
from ..net.resolver import Resolver
from ..net.tunnel import encode_basic
from ..proxies import PROXY_ALIASES, PROXY_PORTS, Proxy, ProxyRules, from_environment
from ..urls import PORTS, SplitURL
from .exits import (
    BAD_SETTING,
    MALFORMED_URL,
    NOT_CONNECTED,
    PROXY_NOT_RESOLVED,
    READ_ERROR,
    UNSUPPORTED_PROTOCOL,
    USAGE,
    Failed,
)
from .urls import basic_of, check_scheme, locate, typed

__all__ = ["PROG", "Options", "parse"]

PROG = "python -m aiohttpconn"

MAX_REDIRECTS = 50
"""Redirects that are followed unless ``--max-redirs`` says otherwise: curl's number, not the
client's 10, so that this program follows every chain that curl follows."""

DESCRIPTION = "Fetch URL and write the body to standard output. `demo` shows the package at work."

EPILOG = """\
examples:
  python -m aiohttpconn https://example.org/
  python -m aiohttpconn -i -H 'Accept: text/plain' localhost:8000/page
  python -m aiohttpconn -fsSL --compressed -o page.html example.org
  python -m aiohttpconn -d name=Ada -d @more.txt http://localhost:8000/form
  python -m aiohttpconn -v -o page.html -x http://user:password@proxy:3128 https://example.org/
  python -m aiohttpconn demo

Options mean the same as in curl, and the exit codes are the same, too:
6 name not resolved, 7 not connected, 22 an HTTP error (with -f), 28 timeout, 47 too many
redirects, 60 certificate, 61 broken compression.

This program is more careful than curl: it refuses a redirect from https to http, unless
--proto-redir http allows it, and ignores a user and password in a redirect. After a redirect that
asks for GET, it does not use -X. A compressed body that is cut short is an error.

The environment's http_proxy, https_proxy and all_proxy, in upper case too, name proxies, and its
no_proxy names the hosts that need none. -x replaces the former, --noproxy the latter.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """The parsed arguments. A field of ``-H`` without a value is one that must not be sent.

    ``userinfo``: user and password in the URL; None if ``-u`` or ``-H`` are in their place.
    ``redirect_schemes``: schemes a redirect may lead to; None leaves it to the client's policy.
    """

    url: SplitURL
    authorization: str
    userinfo: str | None
    proxies: ProxyRules
    proxy_user: tuple[str, str] | None
    resolver: Resolver
    method: str
    fields: list[tuple[str, str | None]]
    cookies: list[str]
    body: bytes | None
    output: str
    head_only: bool
    include: bool
    verbose: bool
    fail: bool
    silent: bool
    insecure: bool
    cafile: str | None
    max_time: float | None
    compressed: bool
    follow: bool
    trusted: bool
    max_redirects: float
    redirect_schemes: frozenset[str] | None


def parse(argv: Sequence[str]) -> Options:
    """Return the options; raise ``Failed`` or ``SystemExit``, with curl's codes, for a bad one."""
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
        parser.error("-I asks for the head and -d sends a body: use only one of them")
    method = args.request or ("HEAD" if args.head else "POST" if args.data else "GET")
    url = _url(args.url)
    given = args.user or any(name.lower() == "authorization" for name, _ in args.header)
    return Options(
        url=url,
        authorization=args.user or (basic_of(url.userinfo) if url.userinfo else ""),
        userinfo=None if given else url.userinfo,
        proxies=_proxies(args.proxy, args.noproxy),
        proxy_user=args.proxy_user,
        resolver=_resolver(args.resolve),
        method=method,
        fields=args.header,
        cookies=args.cookie,
        body=b"&".join(_part(*part) for part in args.data) if args.data else None,
        output=args.output,
        head_only=args.head,
        include=args.include,
        verbose=args.verbose,
        fail=args.fail,
        silent=args.silent and not args.show_error,
        insecure=args.insecure,
        cafile=args.cacert,
        max_time=args.max_time or None,
        compressed=args.compressed,
        follow=args.location or args.location_trusted,
        trusted=args.location_trusted,
        max_redirects=args.max_redirs,
        redirect_schemes=args.proto_redir,
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
        help="the same, but @ has no special meaning",
    )
    add(
        *("-b", "--cookie"),
        metavar="DATA",
        action="append",
        default=[],
        type=_cookies,
        help="send these cookies, 'NAME=VALUE; ...'; cookies that a server sets are not kept",
    )
    add("-u", "--user", metavar="USER:PASSWORD", type=_user, help="log in with Basic")
    add("--compressed", action="store_true", help="ask for a compressed body, and decode it")
    add("-L", "--location", action="store_true", help="follow redirects")
    add(
        "--location-trusted",
        action="store_true",
        help="the same, and send user, password and cookies to other servers too; those in a "
        "URL are for that URL alone",
    )
    add(
        "--max-redirs",
        metavar="NUMBER",
        type=_count,
        default=MAX_REDIRECTS,
        help="follow at most this many redirects, %(default)s by default; -1 is no limit",
    )
    add(
        "--proto-redir",
        metavar="PROTOCOLS",
        type=_protocols,
        help="let redirects lead to http, https or all: '=https' allows nothing else, "
        "'http' allows it after https, too",
    )
    add("-o", "--output", metavar="FILE", default="-", help="write to FILE; - is standard output")
    add("-i", "--include", action="store_true", help="write the response's head, too")
    add("-I", "--head", action="store_true", help="ask for the head only, with HEAD, and write it")
    add("-v", "--verbose", action="store_true", help="describe each step on standard error")
    add("-f", "--fail", action="store_true", help="exit with 22 for a status of 400 or more")
    add("-s", "--silent", action="store_true", help="show no errors")
    add("-S", "--show-error", action="store_true", help="show errors even with -s")
    add("-k", "--insecure", action="store_true", help="do not verify the server's certificate")
    add("--cacert", metavar="FILE", help="trust the authorities in this PEM file instead")
    add(
        *("-x", "--proxy"),
        metavar="URL",
        help="[scheme://][user:password@]host[:port]; http, https, socks4, socks4a, socks5 or "
        "socks5h, port 1080 by default (https: 443); '' means no proxy",
    )
    add(
        *("-U", "--proxy-user"),
        metavar="USER:PASSWORD",
        type=_proxy_user,
        help="for a proxy whose URL has no user",
    )
    add(
        "--noproxy",
        metavar="HOSTS",
        help="hosts that need no proxy: names, addresses, blocks, separated by commas; * is all",
    )
    add(
        "--resolve",
        metavar="HOST:PORT:ADDRESS",
        action="append",
        default=[],
        help="do not look this name up, but use ADDRESS[,ADDRESS]...; HOST * is every name",
    )
    add("-m", "--max-time", metavar="SECONDS", type=_seconds, help="give up after this time")
    add("-V", "--version", action="store_true", help="show versions and exit")
    return parser


def _tls() -> str:
    try:
        from ssl import OPENSSL_VERSION
    except ImportError:
        return "no TLS"
    return OPENSSL_VERSION


def _versions() -> str:
    try:
        from uvloop._version import __version__ as version

        loop = f"uvloop {version}"
    except ImportError:
        loop = "uvloop not installed"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"aiohttpconn {__version__} ({python}, {_tls()}, {loop})"


def _url(text: str) -> SplitURL:
    check_scheme("URL", text, PORTS, UNSUPPORTED_PROTOCOL)
    try:
        return locate(text)
    except InvalidURL as exc:
        raise Failed(MALFORMED_URL, str(exc)) from exc


def _proxies(proxy: str | None, noproxy: str | None) -> ProxyRules:
    """Return the environment's rules, with ``-x`` and ``--noproxy`` in their place."""
    environ = dict(os.environ)
    given = {
        "no_proxy": noproxy,
        **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy),
    }
    for name, value in given.items():
        if value is not None:
            environ[name] = environ[name.upper()] = typed(value)
    try:
        if proxy:
            check_scheme("proxy", proxy, (*PROXY_PORTS, *PROXY_ALIASES), NOT_CONNECTED)
            Proxy.parse(typed(proxy))  # its error does not name the environment
        return from_environment(environ)
    except InvalidURL as exc:
        raise Failed(PROXY_NOT_RESOLVED, str(exc)) from exc


def _resolver(entries: Sequence[str]) -> Resolver:
    """Return a resolver with the *entries* of ``--resolve``; the last one for a name wins."""
    static: dict[str, list[str]] = {}
    for entry in entries:
        host, _, rest = entry.removeprefix("+").partition(":")
        port, _, addresses = rest.partition(":")
        static[f"{host.lower()}:{port}"] = [text.strip("[]") for text in addresses.split(",")]
    try:
        return Resolver(static=static)
    except ValueError as exc:
        raise Failed(BAD_SETTING, f"--resolve HOST:PORT:ADDRESS: {exc}") from exc


def _method(text: str) -> str:
    try:
        check_method(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc
    return text


def _field(text: str) -> tuple[str, str | None]:
    """Return the name and value of a ``-H``; the value is None if the field must not be sent."""
    # The head takes ISO-8859-1: this str stands for the bytes typed, whatever their encoding.
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


def _cookies(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(
            f"expected 'NAME=VALUE; ...', got {text!r}; cookie files are not supported"
        )
    return _field(f"Cookie: {text}")[1] or ""


def _user(text: str) -> str:
    _split_user(text)
    return encode_basic(os.fsencode(text))


def _proxy_user(text: str) -> tuple[str, str]:
    return _split_user(typed(text))


def _split_user(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not colon:
        # Do not show *text*: it may be a password.
        raise argparse.ArgumentTypeError("expected a user and a password, with ':' between them")
    return user, password


def _count(text: str) -> float:
    if text == "-1":
        return math.inf
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"expected a number of -1 or more, got {text!r}")
    return int(text)


def _protocols(text: str) -> frozenset[str]:
    """Return the schemes of ``--proto-redir``: curl's list, in which + adds, - removes, = sets."""
    schemes = frozenset(PORTS)
    for item in text.lower().split(","):
        sign, name = re.fullmatch(r"([+=-]?)(.*)", item, re.DOTALL).groups()  # type: ignore[union-attr]
        if name not in (*PORTS, "all"):
            raise argparse.ArgumentTypeError(
                f"expected http, https or all, each after +, - or = or nothing, got {item!r}"
            )
        named = frozenset(PORTS if name == "all" else (name,))
        schemes = named if sign == "=" else schemes - named if sign == "-" else schemes | named
    return schemes


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]*)?|\.[0-9]+", text):
        raise argparse.ArgumentTypeError(f"expected seconds, got {text!r}")
    return float(text)


def _part(kind: str, text: str) -> bytes:
    """Return the bytes for one ``-d``, ``--data-binary`` or ``--data-raw``."""
    if kind == "raw" or not text.startswith("@"):
        return os.fsencode(text)
    try:
        if text == "@-":
            data = sys.stdin.buffer.read() if sys.stdin is not None else b""
        else:
            data = Path(text[1:]).read_bytes()
    except OSError as exc:
        raise Failed(READ_ERROR, f"cannot read {text[1:]!r}: {exc.strerror or exc}") from exc
    # As in curl: the line end at the end of a file is not part of the value.
    return data if kind == "binary" else data.translate(None, b"\r\n\0")
