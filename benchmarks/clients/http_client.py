"""http.client: a connection for each thread."""

from __future__ import annotations

import http.client
from typing import Any

from clients import BLOCK, SyncClient, WrongReply

PIECE = 256 * 1024
JSON = {"Content-Type": "application/json"}


class Client(SyncClient):
    CANNOT = {"pipelined": "it never has two requests on a connection"}  # noqa: RUF012

    def open(self) -> None:
        job = self.job
        self.context = job.context()
        self.kept: list[http.client.HTTPConnection] = []
        if job.action not in ("connect", "idle"):
            self.slots = [self.make(job.host, job.port) for _ in range(job.concurrency)]

    def make(self, host: str, port: int) -> http.client.HTTPConnection:
        if self.context is None:
            return http.client.HTTPConnection(host, port, blocksize=BLOCK)
        return http.client.HTTPSConnection(host, port, context=self.context, blocksize=BLOCK)

    def close(self) -> None:
        for connection in (*self.slots, *self.kept):
            if connection is not None:
                connection.close()
        self.kept = []

    def _response(
        self, connection: http.client.HTTPConnection, method: str, *args: Any
    ) -> http.client.HTTPResponse:
        connection.request(method, self.job.path, *args)
        response = connection.getresponse()
        if response.status != 200:
            raise WrongReply(response.status)
        return response

    def get(self, connection: http.client.HTTPConnection) -> int:
        return len(self._response(connection, "GET").read())

    def connect(self, _: None) -> int:
        connection = self.make(*self.next_target())
        size = self.get(connection)
        connection.close()
        return size

    def stream(self, connection: http.client.HTTPConnection) -> int:
        response = self._response(connection, "GET")
        size = 0
        while piece := response.read(PIECE):
            size += len(piece)
        return size

    def readinto(self, connection: http.client.HTTPConnection) -> int:
        response = self._response(connection, "GET")
        size, buffer = 0, bytearray(PIECE)
        while count := response.readinto(buffer):
            size += count
        return size

    def post_json(self, connection: http.client.HTTPConnection) -> int:
        return len(self._response(connection, "POST", self.job.document, JSON).read())

    def upload_bytes(self, connection: http.client.HTTPConnection) -> int:
        return int(self._response(connection, "POST", self.body).read())

    def upload_file(self, connection: http.client.HTTPConnection) -> int:
        length = {"Content-Length": str(self.job.size)}
        with open(self.job.file, "rb", buffering=0) as file:
            return int(self._response(connection, "POST", file, length).read())

    def idle(self, count: int) -> None:
        for _ in range(count):
            connection = self.make(self.job.host, self.job.port)
            self.get(connection)
            self.kept.append(connection)
