"""The relay of a link: carry packets between TUN devices in two network namespaces.

``relay.py NAMESPACE`` makes a device in its own namespace and one in the other, and prints
"ready". Each line of standard input is a fault: percent lost, milliseconds of delay, percent that
are not delayed and so overtake others. It ends with standard input. It imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import selectors
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000

PACKET = 65536
MOST_QUEUED = 10_000
"""Packets that are delayed at a time; more are lost, as in a router."""


def make_device() -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"tun0", IFF_TUN | IFF_NO_PI))
    return device


def main() -> None:
    devices = [make_device()]
    namespace = os.open(sys.argv[1], os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    devices.append(make_device())
    print("ready", flush=True)
    carry(devices)


def carry(devices: list[int]) -> None:
    other = {devices[0]: devices[1], devices[1]: devices[0]}
    loss = delay = reordered = 0.0
    # (when, number, device, packet): the number keeps the order of those that leave at once.
    queued: list[tuple[float, int, int, bytes]] = []
    number = 0
    selector = selectors.DefaultSelector()
    for each in (*devices, 0):
        selector.register(each, selectors.EVENT_READ)
    while True:
        now = time.monotonic()
        while queued and queued[0][0] <= now:
            send(*heapq.heappop(queued)[2:])
        ready = selector.select(queued[0][0] - now if queued else None)
        for key, _ in ready:
            if key.fd == 0:
                line = os.read(0, 1000).decode()
                if not line:
                    return
                loss, delay, reordered = map(float, line.splitlines()[-1].split())
                continue
            for _ in range(64):
                try:
                    packet = os.read(key.fd, PACKET)
                except OSError:
                    break  # there is no more, or the device is down
                if random.random() * 100 < loss or len(queued) > MOST_QUEUED:
                    continue
                if not delay or random.random() * 100 < reordered:
                    send(other[key.fd], packet)
                else:
                    number += 1
                    when = time.monotonic() + delay / 1000
                    heapq.heappush(queued, (when, number, other[key.fd], packet))


def send(device: int, packet: bytes) -> None:
    # A device that is down, or whose queue is full, loses it.
    with contextlib.suppress(OSError):
        os.write(device, packet)


if __name__ == "__main__":
    main()
