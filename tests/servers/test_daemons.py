"""daemons.py itself: what is missing, what does not start, and servers that come back."""

from __future__ import annotations

import sys

import pytest

from .daemons import Daemon, free_port, need

SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("here", flush=True)
while True:
    listener.accept()
"""


def test_what_is_missing_skips_its_tests(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such is not here: apt install no-package"):
        need("no-such", "no-package")


def test_what_is_missing_fails_its_tests_in_ci(monkeypatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such is not here: apt install no-package"):
        need("no-such", "no-package")


def test_what_does_not_start_shows_its_log(tmp_path):
    program = "import sys; sys.exit('no configuration')"
    port = free_port()
    daemon = Daemon([sys.executable, "-c", program], tmp_path, [port], user=None)
    with pytest.raises(RuntimeError) as info:
        daemon.start()
    expected = f"ended with 1 (port {port})\noutput.log:\nno configuration"
    assert str(info.value) == f"<Daemon {tmp_path.name}> {expected}"


def test_what_was_killed_starts_again(tmp_path):
    port = free_port()
    daemon = Daemon([sys.executable, "-c", SERVER, str(port)], tmp_path, [port], user=None)
    try:
        daemon.start()
        assert daemon.log() == "output.log:\nhere"
        daemon.mark_log()
        assert daemon.log() == "(nothing)"
        daemon.kill()
        daemon.start()
        assert daemon.log() == "output.log:\nhere"
    finally:
        daemon.stop()
    daemon.stop()
