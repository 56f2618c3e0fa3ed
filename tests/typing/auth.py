"""Authentication as a caller with a strict type checker writes it; it is never run."""

from __future__ import annotations

import hashlib

from aiohttpconn import Auth, Bearer, Client, Request, Response


class Token(Auth):
    serialized = True

    async def authorize(self, request: Request) -> None:
        request.headers["Authorization"] = "Bearer x"

    async def challenged(self, request: Request, response: Response) -> bool:
        return response.status == 401 and "x" in request.headers["Authorization"]


class Signed(Auth):
    requires_body = True

    def authorize(self, request: Request) -> None:
        assert isinstance(request.body, bytes)
        digest = hashlib.sha256(request.body).hexdigest()
        request.headers["Signature"] = f"{request.method} {request.target} {digest}"

    def challenged(self, request: Request, response: Response) -> bool:
        return bool(response.headers.get_all("WWW-Authenticate"))


class Hashed(Auth):
    async def authorize(self, request: Request) -> None:
        body = request.body
        digest = hashlib.sha256()
        if isinstance(body, bytes):
            digest.update(body)
        elif body.can_read:
            async for block in body:
                digest.update(block)
        request.headers["Digest"] = digest.hexdigest()


class Renewed(Bearer):
    async def authorize(self, request: Request) -> None:
        request.headers["Authorization"] = "Bearer y"


def function(request: Request) -> str | None:
    return None if request.url.startswith("http:") else "x"


async def async_function(request: Request) -> str | None:
    return function(request)


async def main() -> None:
    async with Client(auth=Token()) as client:
        for auth in (Signed(), Hashed(), Renewed("x"), Bearer("x"), ("user", "password"), None):
            await client.get("https://example.org/", auth=auth)
        await client.get("https://example.org/", auth=function)
        await client.get("https://example.org/", auth=async_function)
        await client.get("https://example.org/", auth=lambda request: "x")
