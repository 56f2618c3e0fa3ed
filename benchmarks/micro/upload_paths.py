"""How should the bytes of a large upload be handed to the transport?

    python benchmarks/micro/upload_paths.py [--loop asyncio|uvloop|both] [--tls] [--rounds 7]
                                            [--only bytes|file] [--size MiB]

The script compares ``HTTPConnection.request`` with a bare ``asyncio.BufferedProtocol`` that writes
the same head and body, and obeys pause_writing and resume_writing. The server is a process of its
own, on another core, that reads and forgets. Rounds are interleaved; figures are medians.

Verdict (3.11, Linux 6.18, loopback, ms of CPU for 1 GB, asyncio / uvloop):

bytes: slices of 64 KiB 500 / 460, 256 KiB 300 / 290, 1 MiB 230 / 222, 4 MiB 260 / 210. asyncio
copies data that a transport cannot send at once, so it must never get a whole body (2400). Over
TLS the best slice is 512 KiB by CPU and 256 KiB by throughput: the peer waits while a slice is
encrypted.

file: read and written 64 KiB at a time 385 / 459, 256 KiB 330 / 328, 1 MiB 256 / 251; into the same
memory each time, without waiting for a disk, 260 / 257; the same with memory that begins 16 bytes
into a page, where malloc puts it, 327 / 324; ``os.sendfile`` 387 / 387, ``loop.sendfile`` 380.
sendfile spends its time in waking the reader on the other core, after every 64 KiB: if something
else keeps that reader busy, it costs 160, and reading 290. The package does not use it all the
same, because it waits for the disk in the loop's thread, and nothing tells beforehand whether it
will.

A thread for each block costs 0.1 ms, with all the handing over: 2200 over TLS with blocks of
64 KiB, where reading without waiting costs 680.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trustme

import aiohttpconn

MIB = 1024 * 1024
HEAD = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept-Encoding: identity\r\n"
    b"X-Pad: %b\r\nContent-Length: %d\r\n\r\n"
)
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


# --------------------------------------------------------------------- server


def forget(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    try:
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
        buffer = memoryview(bytearray(256 * 1024))
        while True:
            head = b""
            while b"\r\n\r\n" not in head:
                data = sock.recv(65536)
                if not data:
                    return
                head += data
            head, _, rest = head.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r", 1)[0])
            left = length - len(rest)
            while left > 0:
                size = sock.recv_into(buffer)
                if not size:
                    return
                left -= size
            sock.sendall(REPLY)
    except OSError:
        return
    finally:
        sock.close()


def serve(certificate: str | None) -> None:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    pin(1)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=forget, args=(sock, context), daemon=True).start()


def pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


# --------------------------------------------------------------------- bare


class Bare(asyncio.BufferedProtocol):
    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(65536))
        self.answered = asyncio.get_running_loop().create_future()
        self.paused = False
        self.waiter: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self.answered.done():
            self.answered.set_result(None)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def drained(self) -> None:
        self.waiter = asyncio.get_running_loop().create_future()
        await self.waiter
        self.waiter = None


Send = Callable[[Bare, Any, int], Awaitable[None]]


async def whole(bare: Bare, data: bytes, size: int) -> None:
    bare.transport.write(data)


def sliced(step: int) -> Send:
    async def send(bare: Bare, data: bytes, size: int) -> None:
        view = memoryview(data)
        for start in range(0, size, step):
            bare.transport.write(view[start : start + step])
            if bare.paused:
                await bare.drained()

    return send


def read_and_write(step: int) -> Send:
    async def send(bare: Bare, path: Path, size: int) -> None:
        with path.open("rb", buffering=0) as file:
            while block := file.read(step):
                bare.transport.write(block)
                if bare.paused:
                    await bare.drained()

    return send


def nowait_and_write(step: int, start: int = mmap.PAGESIZE // 2) -> Send:
    """Return a sender that reads into memory that begins *start* bytes into a page."""

    async def send(bare: Bare, path: Path, size: int) -> None:
        buffer = memoryview(mmap.mmap(-1, start + step))[start:]
        tls = bare.transport.get_extra_info("ssl_object") is not None
        bare.transport.set_write_buffer_limits(1 if tls else 0)
        offset = 0
        with path.open("rb", buffering=0) as file:
            while got := os.preadv(file.fileno(), [buffer], offset, os.RWF_NOWAIT):
                offset += got
                bare.transport.write(buffer[:got])
                if bare.paused:
                    await bare.drained()

    return send


async def loop_sendfile(bare: Bare, path: Path, size: int) -> None:
    with path.open("rb") as file:
        await asyncio.get_running_loop().sendfile(bare.transport, file)


def os_sendfile(step: int) -> Send:
    async def send(bare: Bare, path: Path, size: int) -> None:
        loop = asyncio.get_running_loop()
        out = os.dup(bare.transport.get_extra_info("socket").fileno())
        done = loop.create_future()
        offset = 0

        with path.open("rb", buffering=0) as file:
            number = file.fileno()

            def writable() -> None:
                nonlocal offset
                try:
                    offset += os.sendfile(out, number, offset, min(step, size - offset))
                except BlockingIOError:
                    return
                if offset == size:
                    loop.remove_writer(out)
                    done.set_result(None)

            loop.add_writer(out, writable)
            await done
        os.close(out)

    return send


BARE: dict[str, dict[str, Send]] = {
    "bytes": {
        "whole": whole,
        "64 KiB": sliced(64 * 1024),
        "256 KiB": sliced(256 * 1024),
        "1 MiB": sliced(MIB),
        "4 MiB": sliced(4 * MIB),
    },
    "file": {
        "read 64 KiB": read_and_write(64 * 1024),
        "read 256 KiB": read_and_write(256 * 1024),
        "read 1 MiB": read_and_write(MIB),
        "no wait 256 KiB": nowait_and_write(256 * 1024),
        "no wait 1 MiB": nowait_and_write(MIB),
        "no wait 1 MiB, at 16": nowait_and_write(MIB, 16),
        "os.sendfile 256 KiB": os_sendfile(256 * 1024),
        "os.sendfile 4 MiB": os_sendfile(4 * MIB),
        "loop.sendfile": loop_sendfile,
    },
}


def bare_run(send: Send, port: int, source: Any, size: int, context: Any) -> Any:
    async def run(pad: str) -> tuple[float, float]:
        transport, bare = await asyncio.get_running_loop().create_connection(
            Bare, "127.0.0.1", port, ssl=context, server_hostname="localhost" if context else None
        )
        begin, cpu = time.perf_counter(), time.process_time()
        transport.write(HEAD % (port, pad.encode(), size))
        await send(bare, source, size)
        await bare.answered
        result = time.perf_counter() - begin, time.process_time() - cpu
        transport.abort()
        return result

    return run


def our_run(port: int, source: Any, context: Any) -> Any:
    async def run(pad: str) -> tuple[float, float]:
        conn: Any
        if context is None:
            conn = aiohttpconn.HTTPConnection("127.0.0.1", port)
        else:
            conn = aiohttpconn.HTTPSConnection(
                "127.0.0.1", port, context=context, server_hostname="localhost"
            )
        async with conn:
            await conn.connect()
            begin, cpu = time.perf_counter(), time.process_time()
            if isinstance(source, Path):
                with source.open("rb") as file:
                    await conn.request("POST", "/", file, {"X-Pad": pad})
            else:
                await conn.request("POST", "/", source, {"X-Pad": pad})
            await (await conn.getresponse()).read()
            return time.perf_counter() - begin, time.process_time() - cpu

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loop", default="both")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--serve", nargs="?", const="")
    args = parser.parse_args()
    if args.serve is not None:
        serve(args.serve)
        return
    with tempfile.TemporaryDirectory() as folder:
        certificate, context = "", None
        if args.tls:
            authority = trustme.CA()
            certificate = f"{folder}/server.pem"
            authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
                certificate
            )
            context = ssl.create_default_context()
            authority.configure_trust(context)
        command = [sys.executable, __file__, "--serve"] + ([certificate] if certificate else [])
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            measure(args, int(server.stdout.readline()), Path(folder), context)
        finally:
            server.kill()
            server.wait()


def measure(args: argparse.Namespace, port: int, folder: Path, context: Any) -> None:
    pin(0)
    size = args.size * MIB
    data = os.urandom(MIB) * args.size
    path = folder / "body"
    path.write_bytes(data)
    loops: dict[str, Any] = {"asyncio": asyncio.SelectorEventLoop}
    if args.loop != "asyncio":
        import uvloop

        loops["uvloop"] = uvloop.new_event_loop
    for loop, factory in loops.items():
        if args.loop not in ("both", loop):
            continue
        for kind, variants in BARE.items():
            if args.only not in ("", kind):
                continue
            source: Any = data if kind == "bytes" else path
            runs = {"ours": our_run(port, source, context)}
            for name, send in variants.items():
                if context is not None and "sendfile" in name:
                    continue
                if loop == "uvloop" and name == "loop.sendfile":
                    continue
                runs[name] = bare_run(send, port, source, size, context)
            results: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
            names = list(runs)
            for number in range(args.rounds):
                # Each round has another order, because the run before affects the caches. Each
                # round also has another length of the head, the same for all: the position of the
                # body's bytes in the kernel's pages can double the time of copying them.
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    run = runs[name]
                    with asyncio.Runner(loop_factory=factory) as runner:
                        results[name].append(runner.run(run("x" * (number + 1))))
            print(f"{loop}, {kind}{', TLS' if context else ''}, {args.size} MiB")
            for name, result in results.items():
                wall, cpu = (statistics.median(values) for values in zip(*result, strict=True))
                print(
                    f"  {name:20} {size / wall / 1e9:5.2f} GB/s  {cpu / size * 1e12:6.0f} ms CPU/GB"
                )


if __name__ == "__main__":
    main()
