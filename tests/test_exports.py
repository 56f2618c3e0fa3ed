"""The public names: all that ``http.client`` has, and nothing by accident."""

from __future__ import annotations

import http
import http.client
import types

import pytest

import aiohttpconn

SAME_OBJECTS = """
    HTTPException NotConnected InvalidURL UnknownProtocol UnknownTransferEncoding
    UnimplementedFileMode IncompleteRead ImproperConnectionState CannotSendRequest
    CannotSendHeader ResponseNotReady BadStatusLine LineTooLong RemoteDisconnected
    error HTTPMessage parse_headers responses HTTP_PORT HTTPS_PORT
""".split()
"""Names of http.client that are its own objects here."""

OURS = ["HTTPConnection", "HTTPSConnection", "HTTPResponse"]
"""Names of http.client that are classes of this package."""


@pytest.mark.parametrize("name", SAME_OBJECTS)
def test_is_http_clients_own_object(name):
    assert getattr(aiohttpconn, name) is getattr(http.client, name)


@pytest.mark.parametrize("name", http.HTTPStatus.__members__)
def test_each_status_is_a_constant(name):
    assert getattr(aiohttpconn, name) is getattr(http.client, name)


@pytest.mark.parametrize("name", OURS)
def test_is_a_class_of_its_own(name):
    ours = getattr(aiohttpconn, name)
    assert ours is not getattr(http.client, name)
    assert ours.__module__.startswith("aiohttpconn.")
    assert ours.__doc__


def test_has_every_public_name_of_http_client():
    assert set(http.client.__all__) - set(aiohttpconn.__all__) == set()
    assert set(http.client.__all__) <= {*SAME_OBJECTS, *OURS}


def test_every_exported_name_exists():
    assert [name for name in aiohttpconn.__all__ if not hasattr(aiohttpconn, name)] == []
    assert len(set(aiohttpconn.__all__)) == len(aiohttpconn.__all__)


def test_nothing_else_is_public():
    def is_ours(value: object) -> bool:
        return isinstance(value, types.ModuleType) and value.__name__.startswith("aiohttpconn.")

    names = {name for name, value in vars(aiohttpconn).items() if not is_ours(value)}
    # `from __future__ import annotations` leaves its name behind.
    public = {name for name in names if not name.startswith("_")} - {"annotations"}
    # As in http.client, the statuses are there and `import *` does not bring them.
    public -= set(http.HTTPStatus.__members__)
    exported = {name for name in aiohttpconn.__all__ if not name.startswith("_")}
    assert public - exported == set()


def test_every_exception_is_exported():
    from aiohttpconn import exceptions

    assert set(exceptions.__all__) - set(aiohttpconn.__all__) == set()


def test_has_a_version():
    assert aiohttpconn.__version__.count(".") >= 2
