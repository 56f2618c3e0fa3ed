"""Opening transports: from (host, port, proxy, TLS) to a connected ``asyncio.Transport``."""
