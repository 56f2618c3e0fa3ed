"""Soak: real servers that end connections, and networks that lose packets: ``make soak``.

Each experiment is a load, a server, and something that goes wrong again and again. Every request
has an id, which its response carries: a response of another request, or one that is whole and
wrong, is *lost*, and so is a request that neither ends nor fails. Nothing may be lost, and nothing
may stay open.

``servers.py`` starts nginx, haproxy and squid; ``links.py`` makes networks; ``loads.py`` makes
requests; ``experiments.py`` has the experiments; ``__main__.py`` runs them and prints the table.
"""
