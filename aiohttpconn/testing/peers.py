"""The client's end of a loopback connection: the number of bytes that it has not read yet.

A client under test lives in the process of its server, so the kernel can tell. Layer: the test
kit.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import sys
from typing import NamedTuple

if sys.platform != "win32":
    import fcntl
    import termios

__all__ = ["Peer", "find_peer", "unread_bytes"]


class Peer(NamedTuple):
    """A socket of this process; the inode tells it from a later one with the same descriptor."""

    fd: int
    inode: int


def find_peer(sock: socket.socket) -> Peer | None:
    """Return the other end of the TCP connection *sock*; None if it cannot be inspected."""
    if sock.fileno() < 0 or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        wanted = sock.getpeername()
        names = os.listdir("/dev/fd")
    except OSError:  # the client has left, or the system has no such folder
        return None
    for name in names:
        fd = int(name)
        try:
            status = os.fstat(fd)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            with socket.socket(fileno=os.dup(fd)) as copy:
                if copy.family == sock.family and copy.getsockname() == wanted:
                    return Peer(fd, status.st_ino)
        except OSError:  # closed meanwhile
            continue
    return None


def unread_bytes(peer: Peer) -> int:
    """Return how many bytes wait in the kernel for *peer*; 0 once it is closed."""
    if sys.platform == "win32":
        raise AssertionError("find_peer() finds nothing on Windows")
    try:
        if os.fstat(peer.fd).st_ino != peer.inode:
            return 0
        answer = fcntl.ioctl(peer.fd, termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
