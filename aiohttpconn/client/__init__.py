"""Many connections: the pool, and the client on top of it. Imported when it is first used."""
