"""The servers of the benchmarks: nginx if it is installed, and our own.

Each is a process of its own on free loopback ports; its parent pins it to a core (see ``pinned``).
``start_nginx`` and ``start_own`` yield an ``Endpoint``, and stop the server when their ``with``
block ends. nginx answers before it reads the body of a POST, and cannot wait for other requests:
scenarios that need this are ``own_server``, and use server/own.py even if nginx runs.
"""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import json
import os
import re
import resource
import select
import shutil
import socket
import string
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from scenarios import KIB, MIB, REPLY

__all__ = ["Certificate", "Endpoint", "ServerError", "find_nginx", "pinned", "start_nginx"]

HERE = Path(__file__).parent / "server"
HOSTS = 64
START_SECONDS = 15.0
ATTEMPTS = 3
FILES = {"1m": MIB, "256m": 256 * MIB, "chunked": 64 * KIB}


class ServerError(Exception):
    """A server could not be started."""


@dataclass(frozen=True)
class Certificate:
    """The files for TLS, made by trustme for every loopback address in use."""

    cafile: str
    chain: str
    key: str

    @classmethod
    def make(cls, folder: Path, hosts: list[str]) -> Certificate:
        """Write a certificate into *folder*. Raises ``ImportError`` without trustme."""
        import trustme

        authority = trustme.CA()
        leaf = authority.issue_cert(*hosts)
        made = cls(str(folder / "ca.pem"), str(folder / "chain.pem"), str(folder / "key.pem"))
        authority.cert_pem.write_to_path(made.cafile)
        leaf.private_key_pem.write_to_path(made.key)
        for pem in leaf.cert_chain_pems:
            pem.write_to_path(made.chain, append=True)
        return made


@dataclass(frozen=True)
class Endpoint:
    """A server's addresses: the first of each list is the general one, the others are its hosts."""

    name: str
    version: str
    plain: tuple[tuple[str, int], ...]
    tls: tuple[tuple[str, int], ...] = ()
    cafile: str = ""


# ------------------------------------------------------------------- addresses


def loopback_hosts() -> list[str]:
    """Return 127.0.0.1 and, if all of 127/8 is this machine, one address for each host."""
    first = ipaddress.IPv4Address("127.0.0.1")
    hosts = [str(first + number) for number in range(HOSTS + 1)]
    with socket.socket() as sock:
        try:
            sock.bind((hosts[-1], 0))
        except OSError:
            return ["127.0.0.1"]
    return hosts


def free_addresses(hosts: list[str]) -> tuple[tuple[str, int], ...]:
    """Return (host, port) of one general address and ``HOSTS`` others; each is free now."""
    with contextlib.ExitStack() as stack:
        found = []
        for number in range(HOSTS + 1):
            sock = stack.enter_context(socket.socket())
            sock.bind((hosts[number % len(hosts)], 0))
            found.append(sock.getsockname())
        return tuple(found)


# --------------------------------------------------------------------- processes


def cores() -> list[int]:
    """Return the cores that this process may use; an empty list if that is unknown."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Start processes on *core* in this block: they inherit this process's affinity."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End *process*: politely first, then by force."""
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    process.terminate()
    try:
        process.wait(3)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def wait_listening(process: subprocess.Popen[bytes], address: tuple[str, int]) -> None:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(address, 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise ServerError(f"no server on {address[0]}:{address[1]}")


# -------------------------------------------------------------------------- nginx


def find_nginx() -> tuple[str, str] | None:
    """Return path and version of nginx, or None if it is not installed."""
    path = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if path is None:
        return None
    try:
        done = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"nginx/(\S+)", done.stderr)
    return path, version[1] if version else "?"


@contextlib.contextmanager
def start_nginx(
    folder: Path, core: int | None, certificate: Certificate | None
) -> Generator[Endpoint, None, None]:
    """Run nginx from *folder*, with the files that it serves. Raises ``ServerError``."""
    found = find_nginx()
    if found is None:
        raise ServerError("nginx is not installed")
    for name, size in FILES.items():
        make_file(folder / name, size)
    hosts = loopback_hosts()
    for attempt in range(ATTEMPTS):
        plain = free_addresses(hosts)
        tls = free_addresses(hosts) if certificate is not None else ()
        write_configuration(folder, plain, tls, certificate)
        try:
            process = launch_nginx(found[0], folder, core, plain[0])
            break
        except ServerError:
            # Another process may have taken an address that was free.
            if attempt == ATTEMPTS - 1:
                raise
    try:
        cafile = certificate.cafile if certificate is not None else ""
        yield Endpoint("nginx", found[1], plain, tls, cafile)
    finally:
        stop(process)


def launch_nginx(
    path: str, folder: Path, core: int | None, address: tuple[str, int]
) -> subprocess.Popen[bytes]:
    """Start nginx and wait until it listens. Raises ``ServerError`` with nginx's messages."""
    command = [path, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with pinned(core), (folder / "nginx.out").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_listening(process, address)
    except BaseException as exc:
        stop(process)
        if not isinstance(exc, ServerError):
            raise
        logs = [folder / "nginx.out", folder / "error.log"]
        said = "".join([log.read_text() for log in logs if log.exists()])
        raise ServerError(f"nginx did not start: {said.strip()[:300]}") from None
    return process


def write_configuration(
    folder: Path,
    plain: tuple[tuple[str, int], ...],
    tls: tuple[tuple[str, int], ...],
    certificate: Certificate | None,
) -> None:
    """Fill in server/nginx.conf; root's nginx stays root, so that it may read *folder*."""
    listen = [f"        listen {host}:{port} backlog=4096;" for host, port in plain]
    listen += [f"        listen {host}:{port} ssl backlog=4096;" for host, port in tls]
    lines = []
    if certificate is not None:
        lines.append(f"        ssl_certificate {certificate.chain};")
        lines.append(f"        ssl_certificate_key {certificate.key};")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    template = string.Template((HERE / "nginx.conf").read_text())
    text = template.substitute(
        user=f"user root {grp.getgrgid(0).gr_name};" if os.geteuid() == 0 else "",
        files=files,
        connections=files - 256,  # without listening sockets and files
        folder=folder,
        listen="\n".join(listen),
        tls="\n".join(lines),
        session_cache="shared:tls:10m",
        reply=REPLY.decode(),
    )
    (folder / "nginx.conf").write_text(text)


def make_file(path: Path, size: int) -> None:
    """Write *size* bytes of a pattern: not all pages of zeros would be read."""
    block = bytes(range(256)) * (min(size, MIB) // 256)
    with path.open("wb") as file:
        for _ in range(size // len(block)):
            file.write(block)


# ---------------------------------------------------------------------------- own


@contextlib.contextmanager
def start_own(core: int | None, certificate: Certificate | None) -> Generator[Endpoint, None, None]:
    """Run server/own.py. Raises ``ServerError``."""
    hosts = loopback_hosts()
    plan = {"plain": free_addresses(hosts)}
    command = [sys.executable, str(HERE / "own.py")]
    if certificate is not None:
        plan["tls"] = free_addresses(hosts)
        command += ["--certificate", certificate.chain, "--key", certificate.key]
    command += ["--plan", json.dumps(plan)]
    with pinned(core):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
        line = process.stdout.readline() if ready else b""
        if not line:
            raise ServerError("server/own.py did not start")
        loop = json.loads(line)["loop"]
        cafile = certificate.cafile if certificate is not None else ""
        yield Endpoint("own", f"on {loop}", plan["plain"], plan.get("tls", ()), cafile)
    finally:
        stop(process)
