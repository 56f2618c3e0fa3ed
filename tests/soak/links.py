"""Networks of two ends, with a link that loses, delays and reorders packets, or is down.

Each end is a network namespace of its own, so nothing else of the machine is touched. The link is
a veth pair with ``tc netem`` where the kernel has that, else two TUN devices and a process that
carries packets between them (``relay.py``). Both need root and Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["BLACKHOLE", "FAULTS", "SERVER", "Fault", "Link", "link", "wait_for", "why_not"]

CLIENT = "10.213.7.1"
SERVER = "10.213.7.2"
"""The address of the server's end."""

START_SECONDS = 10

CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Fault:
    """What a link does: *loss* and *reordered* in percent of packets, *delay* in milliseconds."""

    loss: float = 0
    delay: float = 0
    reordered: float = 0


FAULTS = {
    "1% loss": Fault(loss=1),
    "5% loss": Fault(loss=5),
    "50 ms delay": Fault(delay=50),
    "25% reordered": Fault(delay=10, reordered=25),
    "1% loss, 50 ms delay": Fault(loss=1, delay=50),
}

BLACKHOLE = Fault(loss=100)


def why_not() -> str:
    """Return why there can be no link on this machine, or ""."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "links need Linux and root"
    for program in "ip", "tc", "setpriv":
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            return f"links need {program}: apt install iproute2 util-linux"
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_namespace("aiohttpconn-try"))
        except subprocess.CalledProcessError as exc:
            return f"links need network namespaces: {exc.stderr.strip()}"
    return "" if _has_netem() or Path("/dev/net/tun").exists() else "no netem and no /dev/net/tun"


class Link:
    """A link; ``run_at_client`` and ``run_at_server`` begin commands that run at its ends."""

    def __init__(self, name: str) -> None:
        self.run_at_client = ["ip", "netns", "exec", f"{name}-a"]
        self.run_at_server = ["ip", "netns", "exec", f"{name}-b"]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread be at the client's end, for the length of the block."""
        with open("/proc/thread-self/ns/net") as before:
            with open(f"/run/netns/{self.run_at_client[-1]}") as namespace:
                _enter(namespace.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def set(self, fault: Fault) -> None:
        """Let the link have *fault* from now on, in both directions."""
        raise NotImplementedError

    def take_down(self, down: bool) -> None:
        """Take the device of the server's end down, or up again."""
        raise NotImplementedError


class _Netem(Link):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        a, b = "veth-a", "veth-b"
        _run(
            [
                "ip",
                "link",
                "add",
                a,
                "netns",
                f"{name}-a",
                "type",
                "veth",
                "peer",
                b,
                "netns",
                f"{name}-b",
            ]
        )
        _configure(self.run_at_client, a, CLIENT)
        _configure(self.run_at_server, b, SERVER)

    def set(self, fault: Fault) -> None:
        for inside, device in (self.run_at_client, "veth-a"), (self.run_at_server, "veth-b"):
            netem = ["limit", "100000", "delay", f"{fault.delay}ms", "loss", f"{fault.loss}%"]
            if fault.reordered:
                netem += ["reorder", f"{fault.reordered}%"]
            _run([*inside, "tc", "qdisc", "replace", "dev", device, "root", "netem", *netem])

    def take_down(self, down: bool) -> None:
        _run([*self.run_at_server, "ip", "link", "set", "veth-b", "down" if down else "up"])


class _Relayed(Link):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        relay = Path(__file__).with_name("relay.py")
        self._relay = subprocess.Popen(
            [*self.run_at_client, sys.executable, str(relay), f"/run/netns/{name}-b"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._relay.stdout is not None
        assert self._relay.stdout.readline() == "ready\n", "the relay has not begun"
        _configure(self.run_at_client, "tun0", CLIENT, SERVER)
        _configure(self.run_at_server, "tun0", SERVER, CLIENT)

    def set(self, fault: Fault) -> None:
        assert self._relay.stdin is not None
        print(fault.loss, fault.delay, fault.reordered, file=self._relay.stdin, flush=True)

    def take_down(self, down: bool) -> None:
        _run([*self.run_at_server, "ip", "link", "set", "tun0", "down" if down else "up"])

    def close(self) -> None:
        assert self._relay.stdin is not None
        assert self._relay.stdout is not None
        self._relay.stdin.close()
        self._relay.wait(START_SECONDS)
        self._relay.stdout.close()


@contextlib.contextmanager
def link() -> Iterator[Link]:
    """Make a link without a fault; it is gone at the end, with all that runs at its ends."""
    name = f"aiohttpconn-{os.getpid()}"
    with _namespace(f"{name}-a"), _namespace(f"{name}-b"):
        if _has_netem():
            yield _Netem(name)
            return
        made = _Relayed(name)
        try:
            yield made
        finally:
            made.close()


def wait_for(url: str) -> None:
    """Wait until a server listens at *url*, "http://host:port"."""
    host, _, port = url.removeprefix("http://").partition(":")
    until = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _enter(namespace: int) -> None:
    """Mirrors ``os.setns``, which Python 3.11 does not have."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _has_netem() -> bool:
    with _namespace("aiohttpconn-try"):
        command = "ip netns exec aiohttpconn-try tc qdisc add dev lo root netem delay 1ms"
        return subprocess.run(command.split(), capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def _namespace(name: str) -> Iterator[None]:
    _run(["ip", "netns", "add", name])
    try:
        _run(["ip", "netns", "exec", name, "ip", "link", "set", "lo", "up"])
        yield
    finally:
        pids = subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
        )
        for pid in map(int, pids.stdout.split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        until = time.monotonic() + START_SECONDS
        while subprocess.run(
            ["ip", "netns", "del", name], capture_output=True, check=False
        ).returncode:
            if time.monotonic() > until:
                raise RuntimeError(f"the network namespace {name} cannot be removed")
            time.sleep(0.05)


def _configure(inside: Sequence[str], device: str, own: str, other: str = "") -> None:
    """Give *device* its address; a point-to-point one has the *other* end's, too."""
    address = [own, "peer", other] if other else [f"{own}/24"]
    _run([*inside, "ip", "addr", "add", *address, "dev", device])
    _run([*inside, "ip", "link", "set", device, "up"])


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=START_SECONDS)
