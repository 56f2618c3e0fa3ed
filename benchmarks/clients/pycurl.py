"""pycurl (libcurl): easy handles in one ``CurlMulti``, driven by its socket callbacks and epoll."""

from __future__ import annotations

import io
import selectors
import time
from math import inf
from typing import Any

import pycurl

from clients import SyncClient, WrongReply

NEVER = inf
"""The value of ``due`` when no timer is due."""

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
EVENTS = {
    pycurl.POLL_IN: READ,
    pycurl.POLL_OUT: WRITE,
    pycurl.POLL_INOUT: READ | WRITE,
}


class Transfer:
    """An easy handle and the data that it has received."""

    def __init__(self) -> None:
        self.easy = pycurl.Curl()
        self.sink: Any = None
        self.size = 0
        self.file: Any = None

    def count(self, data: bytes) -> None:
        self.size += len(data)


class Client(SyncClient):
    CANNOT = {  # noqa: RUF012
        "readinto": "its callbacks give out bytes objects of their own",
        "pipelined": "libcurl has dropped pipelining",
        "idle": "this adapter makes a handle for each: their memory would not be the connections'",
    }

    def open(self) -> None:
        job = self.job
        self.multi = pycurl.CurlMulti()
        self.multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self.multi.setopt(pycurl.M_MAXCONNECTS, job.concurrency)
        self.selector = selectors.DefaultSelector()
        self.due = NEVER
        self.transfers = [self._make() for _ in range(job.concurrency)]

    def _make(self) -> Transfer:
        job = self.job
        transfer = Transfer()
        easy = transfer.easy
        easy.setopt(pycurl.URL, self.url)
        easy.setopt(pycurl.NOSIGNAL, 1)
        easy.setopt(pycurl.PROXY, "")
        easy.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        if job.tls:
            easy.setopt(pycurl.CAINFO, job.cafile)
        if job.action == "connect":
            easy.setopt(pycurl.FORBID_REUSE, 1)
        if job.size >= 64 * 1024:
            easy.setopt(pycurl.BUFFERSIZE, 256 * 1024)
        if job.action == "stream":
            easy.setopt(pycurl.WRITEFUNCTION, transfer.count)
        if job.action == "post_json":
            easy.setopt(pycurl.HTTPHEADER, ["Content-Type: application/json"])
            easy.setopt(pycurl.POSTFIELDS, job.document)
        elif job.action.startswith("upload"):
            # Without "Expect: 100-continue", which libcurl waits for.
            easy.setopt(pycurl.HTTPHEADER, ["Expect:", "Content-Type:"])
            easy.setopt(pycurl.UPLOAD_BUFFERSIZE, 2 * 1024 * 1024)
        return transfer

    def close(self) -> None:
        for transfer in self.transfers:
            transfer.easy.close()
        self.multi.close()
        self.selector.close()

    def _on_socket(self, what: int, fd: int, multi: Any, data: Any) -> None:
        if what == pycurl.POLL_REMOVE:
            self.selector.unregister(fd)
            return
        try:
            self.selector.modify(fd, EVENTS[what])
        except KeyError:
            self.selector.register(fd, EVENTS[what])

    def _on_timer(self, milliseconds: int) -> None:
        self.due = time.monotonic() + milliseconds / 1000 if milliseconds >= 0 else NEVER

    # The actions only show which are possible: run() below does not call them.

    def get(self, _: None) -> int:
        raise NotImplementedError

    connect = stream = post_json = upload_bytes = upload_file = get

    def run(self, count: int) -> int:
        self.left = count
        running = 0
        self.by_easy = {transfer.easy: transfer for transfer in self.transfers}
        for transfer in self.transfers[:count]:
            self._begin(transfer)
            running += 1
        multi, select = self.multi, self.selector.select
        while running:
            wait = self.due - time.monotonic()
            events = select(min(wait, 10.0)) if wait > 0 else ()
            if not events and self.due <= time.monotonic():
                self.due = NEVER
                multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            for key, mask in events:
                ready = (pycurl.CSELECT_IN if mask & READ else 0) | (
                    pycurl.CSELECT_OUT if mask & WRITE else 0
                )
                multi.socket_action(key.fd, ready)
            running -= self._finished()
        return count

    def _begin(self, transfer: Transfer) -> None:
        self.left -= 1
        easy, action = transfer.easy, self.job.action
        if action == "stream":
            transfer.size = 0
        else:
            transfer.sink = io.BytesIO()
            easy.setopt(pycurl.WRITEDATA, transfer.sink)
        if action == "connect":
            easy.setopt(pycurl.URL, self.next_url())
        elif action == "upload_bytes":
            # POSTFIELDS would copy it.
            easy.setopt(pycurl.POST, 1)
            easy.setopt(pycurl.READDATA, io.BytesIO(self.body))
            easy.setopt(pycurl.POSTFIELDSIZE_LARGE, self.job.size)
        elif action == "upload_file":
            # _check closes it.
            transfer.file = open(self.job.file, "rb", buffering=0)  # noqa: SIM115
            easy.setopt(pycurl.POST, 1)
            easy.setopt(pycurl.READDATA, transfer.file)
            easy.setopt(pycurl.POSTFIELDSIZE_LARGE, self.job.size)
        self.multi.add_handle(easy)

    def _finished(self) -> int:
        """Check finished transfers, and begin the next; return how many fewer run."""
        fewer = 0
        while True:
            queued, good, bad = self.multi.info_read()
            for _, number, message in bad:
                raise WrongReply(f"libcurl's error {number}: {message}")
            for easy in good:
                self.multi.remove_handle(easy)
                self._check(self.by_easy[easy])
                if self.left > 0:
                    self._begin(self.by_easy[easy])
                else:
                    fewer += 1
            if not queued:
                return fewer

    def _check(self, transfer: Transfer) -> None:
        status = transfer.easy.getinfo(pycurl.RESPONSE_CODE)
        if status != 200:
            raise WrongReply(status)
        action, size = self.job.action, transfer.size
        if action.startswith("upload"):
            if transfer.file is not None:
                transfer.file.close()
            # Let go of the body.
            transfer.easy.setopt(pycurl.READDATA, io.BytesIO())
            size = int(transfer.sink.getvalue())
        elif action != "stream":
            size = len(transfer.sink.getvalue())
        if size != self.job.size:
            raise WrongReply(f"{size} bytes, not {self.job.size}")
