"""The client, on top of the pool: what programs ask for. Imported when it is first used."""
