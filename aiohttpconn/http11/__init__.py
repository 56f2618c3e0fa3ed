"""The wire: pure functions over the bytes of HTTP/1.1 (RFC 9110, RFC 9112). No I/O, no clock."""
