"""The client, on top of the pool: complete requests for programs. Loaded on first use."""
