"""Tests against servers and proxies that others have written: see docs/contributing.md.

``daemons.py`` starts and ends them, ``origins.py`` and ``proxies.py`` say how each is set up,
``app.py`` is what the application servers run, ``site.py`` makes the files. The fixtures are in
``conftest.py``: ``origin`` is every server in turn, ``file_server`` each that has the files.
"""
