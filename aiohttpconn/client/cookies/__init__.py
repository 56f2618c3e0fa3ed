"""Cookies: kept, sent, and given by callers (RFC 6265bis)."""
