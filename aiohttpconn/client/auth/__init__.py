"""Authentication of requests: Basic, Bearer, Netrc, Digest, and functions of the caller."""
