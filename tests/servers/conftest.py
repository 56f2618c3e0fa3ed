"""Fixtures: real servers and proxies, each started when the first test wants it, for the session.

``origin``, ``file_server``, ``http_proxy``: a test that takes one runs against each. ``nginx``,
``apache``, ``lighttpd``, ``haproxy``, ``uvicorn``, ``hypercorn``, ``squid``, ``tinyproxy``,
``dante``: that one. What is not installed skips its tests, and in CI fails them.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from . import origins, proxies
from .daemons import NOBODY, Daemon
from .origins import Grounds, Origin
from .proxies import Proxy
from .site import Site

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from ..support.tls import Certificates

FILE_SERVERS = ["nginx", "apache", "lighttpd", "haproxy"]
ORIGINS = [*FILE_SERVERS, "uvicorn", "hypercorn"]
HTTP_PROXIES = ["squid", "tinyproxy"]


def daemons_of(item: pytest.Item) -> list[Daemon]:
    """Return those that a test uses."""
    servers = {value for value in item.funcargs.values() if isinstance(value, Origin | Proxy)}
    return [daemon for server in servers for daemon in server.daemons]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    for daemon in daemons_of(item):
        daemon.mark_log()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if report.failed:
        report.sections += [(f"log of {daemon}", daemon.log()) for daemon in daemons_of(item)]
    return report


# What servers are set up with ------------------------------------------------------------


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    # Not in pytest's own folder, where nobody but its owner may look.
    path = Path(tempfile.mkdtemp(prefix="aiohttpconn-servers-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def site(folder: Path) -> Site:
    """Return the files that file servers serve."""
    return Site(folder / "site")


@pytest.fixture(scope="session")
def grounds(folder: Path, site: Site, certificates: Certificates) -> Grounds:
    pem = folder / "server.pem"
    cert = certificates.ca.issue_cert("localhost", "127.0.0.1", "::1")
    cert.private_key_and_cert_chain_pem.write_to_path(str(pem))

    def make_folder(name: str) -> Path:
        made = folder / name
        made.mkdir()
        if NOBODY is not None:
            shutil.chown(made, NOBODY)
        return made

    return Grounds(make_folder, site.folder, pem)


def running(server: Origin | Proxy) -> Iterator[Any]:
    """Start *server*, and end it when the session ends."""
    try:
        for daemon in server.daemons:
            daemon.start()
        yield server
    finally:
        for daemon in server.daemons:
            daemon.stop()


def port_of(origin: Origin) -> int:
    return origin.daemon.ports[0]


# Servers ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def uvicorn(grounds: Grounds) -> Iterator[Origin]:
    yield from running(origins.uvicorn(grounds))


@pytest.fixture(scope="session")
def hypercorn(grounds: Grounds) -> Iterator[Origin]:
    yield from running(origins.hypercorn(grounds))


@pytest.fixture(scope="session")
def nginx(grounds: Grounds, uvicorn: Origin) -> Iterator[Origin]:
    yield from running(origins.nginx(grounds, port_of(uvicorn)))


@pytest.fixture(scope="session")
def apache(grounds: Grounds, uvicorn: Origin) -> Iterator[Origin]:
    yield from running(origins.apache(grounds, port_of(uvicorn)))


@pytest.fixture(scope="session")
def lighttpd(grounds: Grounds, uvicorn: Origin) -> Iterator[Origin]:
    yield from running(origins.lighttpd(grounds, port_of(uvicorn)))


@pytest.fixture(scope="session")
def haproxy(grounds: Grounds, uvicorn: Origin, nginx: Origin) -> Iterator[Origin]:
    yield from running(origins.haproxy(grounds, port_of(uvicorn), port_of(nginx)))


@pytest.fixture(params=ORIGINS)
def origin(request: pytest.FixtureRequest) -> Any:
    """Return each of the servers."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=FILE_SERVERS)
def file_server(request: pytest.FixtureRequest) -> Any:
    """Return each of the servers that have the site."""
    return request.getfixturevalue(request.param)


# Proxies ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def squid(grounds: Grounds) -> Iterator[Proxy]:
    yield from running(proxies.squid(grounds))


@pytest.fixture(scope="session")
def tinyproxy(grounds: Grounds) -> Iterator[Proxy]:
    yield from running(proxies.tinyproxy(grounds))


@pytest.fixture(scope="session")
def dante(grounds: Grounds) -> Iterator[Proxy]:
    yield from running(proxies.dante(grounds))


@pytest.fixture(params=HTTP_PROXIES)
def http_proxy(request: pytest.FixtureRequest) -> Any:
    """Return each of the HTTP proxies."""
    return request.getfixturevalue(request.param)
