"""Authentication of requests: Basic, Bearer, Netrc, Digest, and a caller's own."""
