"""The servers of the soak: nginx that ends connections often, haproxy and squid in front of it.

nginx: ``/id/ANY`` answers with its own path and the length of the request's body, ``/up/ANY`` the
same when it has the whole body; ``/dav/ANY`` stores (PUT) and gives; ``/files/N`` is file N.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trustme

from ..servers.daemons import NOBODY, Daemon, free_port, need

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FILES", "Grounds", "Server", "haproxy", "nginx", "squid"]

FILES = {
    name: (f"{name} ".encode() * 200_000)[:size]
    for name, size in (("small", 1_000), ("middle", 100_000), ("large", 1_000_000))
}
"""The files below /files/, by name."""

REQUESTS = 7
"""Requests that nginx serves on one connection."""


class Grounds:
    """The folder in which servers have theirs, the files that they serve, and a certificate."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self._folder = folder
        self.pem = folder / "server.pem"
        self.ca_file = str(folder / "ca.pem")
        ca = trustme.CA()
        ca.cert_pem.write_to_path(self.ca_file)
        cert = ca.issue_cert("localhost", "127.0.0.1")
        cert.private_key_and_cert_chain_pem.write_to_path(str(self.pem))
        if NOBODY is not None:
            shutil.chown(self.pem, NOBODY)
        self.root = self.make_folder("root")
        self.files = self.root / "files"
        self.files.mkdir()
        for name, content in FILES.items():
            (self.files / name).write_bytes(content)

    def make_folder(self, name: str) -> Path:
        """Make a folder that belongs to whom servers run as."""
        made = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        made.chmod(0o755)
        if NOBODY is not None:
            shutil.chown(made, NOBODY)
        return made


@dataclass(frozen=True)
class Server:
    """A server. ``http`` and ``https`` are URLs; ``proxy`` is one for a client's ``proxy=``.

    ``reload`` lets it end its connections when it has answered what it was asked; ``kill`` ends
    them at once.
    """

    name: str
    daemon: Daemon
    http: str
    https: str
    reload: Callable[[], None]
    kill: Callable[[], None]
    proxy: str | None = None


NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 2;
worker_shutdown_timeout 10s;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 10m;
    default_type application/octet-stream;
    add_header X-Id $http_x_id always;
    keepalive_requests {requests};
    keepalive_timeout 1s;
    server {{
        listen {address}:{plain} backlog=4096;
        listen {address}:{tls} ssl;
        ssl_certificate {pem}; ssl_certificate_key {pem};
        location /id/ {{ return 200 "$uri $content_length"; }}
        location /up/ {{ proxy_pass http://{address}:{plain}/id/; }}
        location /files/ {{ root {root}; }}
        location /dav/ {{ root {folder}; dav_methods PUT DELETE; create_full_put_path on; }}
    }}
}}
"""


def nginx(grounds: Grounds, address: str = "127.0.0.1", inside: Sequence[str] = ()) -> Server:
    """Set up nginx on *address*; the command *inside* runs it in a network of its own."""
    program = need("nginx", "nginx-light")
    folder = grounds.make_folder("nginx")
    plain, tls = free_port(), free_port()
    config = folder / "nginx.conf"
    config.write_text(
        NGINX.format(
            folder=folder,
            address=address,
            plain=plain,
            tls=tls,
            pem=grounds.pem,
            root=grounds.root,
            requests=REQUESTS,
        )
    )
    command = [*inside, program, "-p", f"{folder}/", "-c", str(config), "-e", f"{folder}/error.log"]
    daemon = Daemon(
        command,
        folder,
        () if inside else (plain, tls),
        logs=["error.log"],
        user=None if inside else NOBODY,
    )

    def kill_a_worker() -> None:
        # Workers are children; one that is ending after a reload may be gone by now.
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.choice(daemon.children()), signal.SIGKILL)

    return Server(
        "nginx",
        daemon,
        f"http://{address}:{plain}",
        f"https://localhost:{tls}",
        lambda: daemon.signal(signal.SIGHUP),
        kill_a_worker,
    )


HAPROXY = """
global
    maxconn 2000
    hard-stop-after 10s
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 1s
    default_backend files
    retries 3
    option redispatch
    retry-on all-retryable-errors
frontend main
    bind 127.0.0.1:{plain}
    bind 127.0.0.1:{tls} ssl crt {pem} alpn http/1.1
backend files
    http-reuse safe
    server nginx {behind}
"""


def haproxy(grounds: Grounds, behind: Server) -> Server:
    """Set up haproxy in front of *behind*."""
    program = need("haproxy", "haproxy")
    folder = grounds.make_folder("haproxy")
    plain, tls = free_port(), free_port()
    config = folder / "haproxy.cfg"
    target = behind.http.removeprefix("http://")
    config.write_text(HAPROXY.format(plain=plain, tls=tls, pem=grounds.pem, behind=target))
    daemon = Daemon([program, "-W", "-f", str(config)], folder, (plain, tls))
    return Server(
        "haproxy",
        daemon,
        f"http://127.0.0.1:{plain}",
        f"https://localhost:{tls}",
        lambda: daemon.signal(signal.SIGUSR2),
        lambda: _restart(daemon),
    )


SQUID = """
http_port 127.0.0.1:{port}
visible_hostname squid.test
pid_filename none
coredump_dir {folder}
cache_log {folder}/cache.log
access_log none
netdb_filename none
pinger_enable off
cache deny all
client_idle_pconn_timeout 1 second
server_idle_pconn_timeout 1 second
shutdown_lifetime 1 second
acl CONNECT method CONNECT
http_access allow all
"""


def squid(grounds: Grounds, behind: Server) -> Server:
    """Set up squid as the proxy to *behind*."""
    program = need("squid", "squid")
    folder = grounds.make_folder("squid")
    port = free_port()
    config = folder / "squid.conf"
    config.write_text(SQUID.format(folder=folder, port=port))
    daemon = Daemon([program, "-N", "-f", str(config)], folder, (port,), logs=["cache.log"])
    return Server(
        "squid",
        daemon,
        behind.http,
        behind.https,
        lambda: daemon.signal(signal.SIGHUP),
        lambda: _restart(daemon),
        proxy=f"http://127.0.0.1:{port}",
    )


def _restart(daemon: Daemon) -> None:
    daemon.kill()
    daemon.start()
