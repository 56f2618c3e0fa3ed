"""One request, without a client to close: ``await aiohttpconn.get(url)``. Layer: client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from .client import Client

if TYPE_CHECKING:
    from .response import Response
    from .settings import RequestOptions

__all__ = ["delete", "get", "head", "options", "patch", "post", "put", "request"]


async def request(method: str, url: str, **options: Unpack[RequestOptions]) -> Response:
    """Send a request on a new connection, and close that; arguments as for ``Client.request``.

    For more than a few requests use a ``Client``: it keeps connections, TLS sessions and names.
    """
    async with Client() as client:
        return await client.request(method, url, **options)


async def get(url: str, **options: Unpack[RequestOptions]) -> Response:
    """``request("GET", url, ...)``."""
    return await request("GET", url, **options)


async def head(url: str, **options: Unpack[RequestOptions]) -> Response:
    """``request("HEAD", url, ...)``."""
    return await request("HEAD", url, **options)


async def post(url: str, **options: Unpack[RequestOptions]) -> Response:
    """``request("POST", url, ...)``."""
    return await request("POST", url, **options)


async def put(url: str, **options: Unpack[RequestOptions]) -> Response:
    """``request("PUT", url, ...)``."""
    return await request("PUT", url, **options)


async def patch(url: str, **options: Unpack[RequestOptions]) -> Response:
    """``request("PATCH", url, ...)``."""
    return await request("PATCH", url, **options)


async def delete(url: str, **options: Unpack[RequestOptions]) -> Response:
    """``request("DELETE", url, ...)``."""
    return await request("DELETE", url, **options)


async def options(url: str, **options: Unpack[RequestOptions]) -> Response:
    """``request("OPTIONS", url, ...)``."""
    return await request("OPTIONS", url, **options)
