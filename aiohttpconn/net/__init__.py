"""Getting a transport: from (host, port, proxy, TLS) to a connected ``asyncio.Transport``."""
