"""Hints: names of requests, httpx and aiohttp, and what is here for them.

Callers come from those clients with such names in their fingers. Pure. Layer: client.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

__all__ = ["OF_CLIENT", "OF_REQUEST", "OF_RESPONSE", "name_unknown"]

_OF_BOTH = {
    "allow_redirects": "follow_redirects=",
    "auto_decompress": "decompress=",
    "cert": "context=, an ssl.SSLContext with load_cert_chain()",
    "compress": "content= with the bytes compressed",
    "proxies": "proxy=",
    "proxy_auth": "proxy= with user and password in its URL",
    "raise_for_status": "response.raise_for_status()",
    "read_timeout": "timeout=Timeout(read=...)",
    "conn_timeout": "timeout=Timeout(connect=...)",
    "retries": "retry=Retry(...)",
    "skip_auto_headers": "headers= with None as the value",
    "ssl": "context=",
    "ssl_context": "context=",
    "trace_request_ctx": "on_request=, and response.timings",
    "verify_ssl": "context=",
}

OF_REQUEST = {
    **_OF_BOTH,
    "body": "content=",
    "chunked": "content= with an iterable",
    "extensions": "an option of its own, such as timeout=",
    "hooks": "on_request= and on_response=",
    "stream": "client.stream(...)",
    "verify": "context=, or the client's cafile=",
}
"""Of a request's options."""

OF_CLIENT = {
    **_OF_BOTH,
    "app": "aiohttpconn.testing, which has servers for tests",
    "conn": "limit= and the other arguments of ConnectionPool",
    "connector": "limit= and the other arguments of ConnectionPool",
    "cookie_jar": "cookies=",
    "event_hooks": "on_request= and on_response=",
    "force_close": "keepalive_timeout=0",
    "hooks": "on_request= and on_response=",
    "http1": "HTTP/1.1 is all that there is",
    "http2": "HTTP/1.1 is all that there is",
    "keepalive_expiry": "keepalive_timeout=",
    "local_addr": "source_address=",
    "local_address": "source_address=",
    "max_connections": "limit=",
    "max_keepalive_connections": "max_idle=",
    "max_field_size": "limits=Limits(max_line=...)",
    "max_line_size": "limits=Limits(max_line=...)",
    "mounts": "proxy= with a dict by scheme or origin",
    "pool_connections": "limit=",
    "pool_maxsize": "limit_per_host=",
    "trace_configs": "on_request=, on_response= and response.timings",
    "transport": "limit=, uds=, resolve= or dialer=; for tests aiohttpconn.testing",
    "ttl_dns_cache": "resolver=Resolver(ttl=...)",
    "use_dns_cache": "resolver=Resolver(ttl=0)",
    "verify": "context=, or cafile=",
}
"""Of a client's arguments."""

OF_RESPONSE = {
    "aclose": "close()",
    "aiter_bytes": "iter_bytes()",
    "aiter_lines": "iter_lines()",
    "aread": "read()",
    "body": "content",
    "charset": "encoding",
    "code": "status",
    "elapsed": "timings",
    "http_version": "raw.version",
    "is_closed": "raw.isclosed()",
    "is_error": "not ok",
    "is_success": "ok",
    "iter_content": "iter_bytes()",
    "iter_text": "iter_lines()",
    "num_bytes_downloaded": "raw.received",
    "real_url": "url",
    "reason_phrase": "reason",
    "release": "close()",
    "request_info": "request",
    "status_code": "status",
}
"""Of a response's attributes."""


def name_unknown(names: Iterable[str], hints: Mapping[str, str]) -> str:
    """Return *names* for the text of an error, each with its hint."""
    return ", ".join(
        f"{name} (here: {hints[name]})" if name in hints else name for name in sorted(names)
    )
