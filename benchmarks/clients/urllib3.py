"""urllib3: one pool that all threads share, without retries or redirects."""

from __future__ import annotations

from typing import Any

import urllib3

from clients import BLOCK, SyncClient, WrongReply

PIECE = 256 * 1024
IDENTITY = {"Accept-Encoding": "identity"}
CLOSING = IDENTITY | {"Connection": "close"}
JSON = IDENTITY | {"Content-Type": "application/json"}


class Client(SyncClient):
    CANNOT = {  # noqa: RUF012
        "pipelined": "it never has two requests on a connection",
        "idle": "its pool opens a connection only for a thread that has none: 10,000 threads",
    }

    def open(self) -> None:
        job = self.job
        options: dict[str, Any] = {"maxsize": job.concurrency, "retries": False}
        options["blocksize"] = BLOCK
        if job.tls:
            options["ssl_context"] = job.context()
        if job.action == "connect":
            self.manager = urllib3.PoolManager(num_pools=len(job.targets), **options)
        self.pool = urllib3.connection_from_url(job.origin, **options)

    def close(self) -> None:
        self.pool.close()

    def _ask(self, method: str, *, whole: bool = True, **options: Any) -> Any:
        response = self.pool.urlopen(
            method,
            self.job.path,
            redirect=False,
            preload_content=whole,
            decode_content=False,
            **{"headers": IDENTITY} | options,
        )
        if response.status != 200:
            raise WrongReply(response.status)
        return response

    def get(self, _: None) -> int:
        return len(self._ask("GET").data)

    def connect(self, _: None) -> int:
        response = self.manager.request("GET", self.next_url(), headers=CLOSING, redirect=False)
        if response.status != 200:
            raise WrongReply(response.status)
        return len(response.data)

    def stream(self, _: None) -> int:
        response = self._ask("GET", whole=False)
        size = sum(map(len, response.stream(PIECE, decode_content=False)))
        response.release_conn()
        return size

    def readinto(self, _: None) -> int:
        response = self._ask("GET", whole=False)
        size, buffer = 0, bytearray(PIECE)
        while count := response.readinto(buffer):
            size += count
        response.release_conn()
        return size

    def post_json(self, _: None) -> int:
        return len(self._ask("POST", body=self.job.document, headers=JSON).data)

    def upload_bytes(self, _: None) -> int:
        return int(self._ask("POST", body=self.body).data)

    def upload_file(self, _: None) -> int:
        length = IDENTITY | {"Content-Length": str(self.job.size)}
        with open(self.job.file, "rb", buffering=0) as file:
            return int(self._ask("POST", body=file, headers=length).data)
