"""The proxies: squid and tinyproxy for HTTP, dante for SOCKS5, and how they are set up.

Each lets everybody through on one port, and only ``ada`` with the password ``sesame`` on another.
"""

from __future__ import annotations

import glob
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .daemons import Daemon, free_port, missing, need

if TYPE_CHECKING:
    from .origins import Grounds

__all__ = ["FORBIDDEN_PORT", "KNOWN_HOST", "Proxy", "dante", "squid", "tinyproxy"]

FORBIDDEN_PORT = 9
"""The port of targets, discard, to which no proxy connects."""

KNOWN_HOST = "known.test"
"""A name of 127.0.0.1 that only the closed one of dante knows."""


@dataclass(frozen=True)
class Proxy:
    """A proxy: ``open`` and ``closed`` are "host:port", and ``closed`` wants ada's password."""

    name: str
    daemons: tuple[Daemon, ...]
    open: str
    closed: str

    def __repr__(self) -> str:
        return f"<Proxy {self.name}>"


def _proxy(name: str, daemons: tuple[Daemon, ...]) -> Proxy:
    ports = [port for daemon in daemons for port in daemon.ports]
    return Proxy(name, daemons, *(f"127.0.0.1:{port}" for port in ports))


SQUID = """
http_port 127.0.0.1:{open} name=open
http_port 127.0.0.1:{closed} name=closed
visible_hostname squid.test
pid_filename none
coredump_dir {folder}
cache_log {folder}/cache.log
access_log stdio:{folder}/access.log
netdb_filename none
pinger_enable off
cache deny all
auth_param basic program {folder}/knows
auth_param basic children 1 startup=1
acl open myportname open
acl known proxy_auth REQUIRED
acl forbidden port {forbidden}
http_access deny forbidden
http_access allow open
http_access allow known
http_access deny all
"""

SQUID_KNOWS = """\
#!/bin/sh
while read -r line; do
    [ "$line" = "ada sesame" ] && echo OK || echo ERR
done
"""


def squid(grounds: Grounds) -> Proxy:
    """Set up squid."""
    program = need("squid", "squid")
    folder = grounds.make_folder("squid")
    ports = free_port(), free_port()
    knows = folder / "knows"
    knows.write_text(SQUID_KNOWS)
    knows.chmod(0o755)
    config = folder / "squid.conf"
    config.write_text(
        SQUID.format(folder=folder, open=ports[0], closed=ports[1], forbidden=FORBIDDEN_PORT)
    )
    command = [program, "-N", "-f", str(config)]
    daemon = Daemon(command, folder, ports, logs=["cache.log", "access.log"])
    return _proxy("squid", (daemon,))


# What it knows of ports is a list of those that are allowed, for CONNECT alone, and those of tests
# are any: so it looks at URLs.
TINYPROXY = """
Listen 127.0.0.1
Port {port}
Timeout 60
MaxClients 200
LogLevel Info
Filter "{folder}/filter"
FilterURLs On
"""
TINYPROXY_FILTER = ":{forbidden}$\n:{forbidden}/\n"


def tinyproxy(grounds: Grounds) -> Proxy:
    """Set up two of tinyproxy, which has one port and one rule."""
    program = need("tinyproxy", "tinyproxy")
    daemons = []
    for name, rules in ("open", ""), ("closed", "BasicAuth ada sesame\n"):
        folder = grounds.make_folder(f"tinyproxy-{name}")
        port = free_port()
        config = folder / "tinyproxy.conf"
        config.write_text(TINYPROXY.format(port=port, folder=folder) + rules)
        (folder / "filter").write_text(TINYPROXY_FILTER.format(forbidden=FORBIDDEN_PORT))
        daemons.append(Daemon([program, "-d", "-c", str(config)], folder, [port]))
    return _proxy("tinyproxy", tuple(daemons))


DANTE = """
logoutput: stdout
internal: 127.0.0.1 port = {port}
external: lo
clientmethod: none
socksmethod: {method}
client pass {{ from: 0/0 to: 0/0 }}
socks block {{ from: 0/0 to: 0/0 port = {forbidden} log: connect error }}
socks pass {{ from: 0/0 to: 0/0 log: connect error }}
"""

# Dante knows no users but the system's. A library that stands in for the system's, nss_wrapper,
# makes it see others, and a host too. The password is "sesame", as crypt(3) writes it.
NSS_WRAPPER = "/usr/lib/*/libnss_wrapper.so"
PASSWD = "ada:x:4242:4242::/nonexistent:/bin/false\n"
SHADOW = (
    "ada:$6$aiohttpconn$B7mTorERgk3wM/.jn.dUgKh9syTTauJ3ib0CySAQaNPSba7v45O/9zUkvC4RR2VO3Db3reW2"
    "7kSJLRp58vAU2/:19000:0:99999:7:::\n"
)
HOSTS = f"127.0.0.1 {KNOWN_HOST}\n"


def dante(grounds: Grounds) -> Proxy:
    """Set up two of dante's server."""
    program = need("danted", "dante-server")
    libraries = glob.glob(NSS_WRAPPER)
    if not libraries:
        missing("dante's users need libnss_wrapper.so: apt install libnss-wrapper")
    daemons = []
    for method in "none", "username":
        folder = grounds.make_folder(f"dante-{method}")
        port = free_port()
        config = folder / "danted.conf"
        config.write_text(DANTE.format(port=port, method=method, forbidden=FORBIDDEN_PORT))
        environ = {"LD_PRELOAD": libraries[0], "NSS_WRAPPER_GROUP": "/etc/group"}
        for name, text in ("passwd", PASSWD), ("shadow", SHADOW), ("hosts", HOSTS):
            (folder / name).write_text(text)
            environ[f"NSS_WRAPPER_{name.upper()}"] = str(folder / name)
        command = [program, "-f", str(config), "-p", str(folder / "pid"), "-N", "1"]
        daemons.append(
            Daemon(command, folder, [port], environ=environ if method == "username" else None)
        )
    return _proxy("dante", tuple(daemons))
