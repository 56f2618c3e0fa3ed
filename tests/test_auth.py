"""client/auth/schemes.py: the RFCs' vectors, refusals that show nothing, and netrc files."""

from __future__ import annotations

import functools
import os
import re
from base64 import b64decode

import pytest

from aiohttpconn.client.auth.digest import Digest
from aiohttpconn.client.auth.schemes import Auth, Basic, Bearer, Netrc, as_auth
from aiohttpconn.client.fields import Fields

from .support.auth import Request, Response, authorized

# Basic, Bearer, functions


@pytest.mark.parametrize(
    ("username", "password", "value"),
    [
        # RFC 7617 §2 and §2.1
        ("Aladdin", "open sesame", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123\xa3", "Basic dGVzdDoxMjPCow=="),
        ("", "", "Basic Og=="),
        ("a", "b:c", "Basic YTpiOmM="),
        # In NFC: one character each, not two.
        ("u\u0308", "e\u0301", "Basic w7w6w6k="),
        ("u" * 99, "p", "Basic " + "dXV1" * 33 + "OnA="),
    ],
)
def test_basic(username, password, value):
    assert authorized(Basic(username, password)) == value
    assert authorized(as_auth((username, password))) == value


@pytest.mark.parametrize("token", ["mF_9.B5f-4.1JqM", "a~+/b==", "x"])
def test_bearer(token):
    assert authorized(Bearer(token)) == f"Bearer {token}"


@pytest.mark.parametrize("value", ["Custom xyz", b"Custom xyz"])
def test_a_function_is_called_for_each_request(value):
    seen = []

    def function(request):
        seen.append(request.url)
        return value

    given = as_auth(function)
    assert authorized(given, url="http://a.test/1") == "Custom xyz"
    assert authorized(given, url="http://a.test/2") == "Custom xyz"
    assert seen == ["http://a.test/1", "http://a.test/2"]
    assert authorized(as_auth(lambda request: None)) is None


def made() -> list[Auth]:
    """Return one of each, the Digest with a challenge to answer."""
    digest = Digest("user", "s3cret")
    assert digest.challenged(Request(), Response.of('Digest realm="r", nonce="n"'))
    return [Basic("user", "s3cret"), Bearer("s3cret"), as_auth(lambda request: "s3cret"), digest]


def test_the_callers_own_authorization_stays():
    for given in made():
        request = Request(headers=Fields({"authorization": "Own"}))
        given.authorize(request)
        assert request.headers.pairs() == [("authorization", "Own")]
        assert not given.challenged(request, Response.of('Digest realm="r", nonce="m"'))
        assert request.headers.pairs() == [("authorization", "Own")]


def test_repr_shows_no_secret():
    shown = [repr(given) for given in made()]
    assert shown == ["<Basic>", "<Bearer>", "<_Function>", "<Digest>"]


def test_only_digest_answers_challenges():
    response = Response.of('Basic realm="r"', 'Digest realm="r", nonce="n"', "Bearer")
    for given in [Auth(), *made()[:3]]:
        assert not given.challenged(Request(), response)
    request = Request()
    Auth().authorize(request)
    assert request.authorization is None


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (
            lambda: Basic("s3:cret", ""),
            ValueError,
            "a user name for Basic authentication must have no colon (RFC 7617 §2)",
        ),
        (lambda: Basic("s3\ncret", ""), ValueError, "a user name must have no control character"),
        (lambda: Basic("", "s3\0cret"), ValueError, "a password must have no control character"),
        (lambda: Basic("", "s3cret\x7f"), ValueError, "a password must have no control character"),
        (lambda: Basic("", "s3cret\ud800"), ValueError, "a password must be encodable as UTF-8"),
        (lambda: Basic("", b"s3cret"), TypeError, "a password must be a str, not bytes"),
        (lambda: Digest("s3cret\r", ""), ValueError, "a user name must have no control character"),
        (lambda: Digest(None, ""), TypeError, "a user name must be a str, not NoneType"),
        (
            lambda: Bearer("s3cret "),
            ValueError,
            "a bearer token consists of letters, digits and -._~+/, with any = at its end ",
        ),
        (lambda: Bearer("=s3cret"), ValueError, "a bearer token consists of letters"),
        (lambda: Bearer(""), ValueError, "a bearer token consists of letters"),
        (lambda: Bearer("s3cret\n"), ValueError, "a bearer token must have no control character"),
        (lambda: Bearer(b"s3cret"), TypeError, "a bearer token must be a str, not bytes"),
        (
            lambda: authorized(
                as_auth(functools.partial(lambda secret, request: secret, "s3cret\r\n"))
            ),
            ValueError,
            "partial() returned a str that cannot be sent as Authorization; it must return None or "
            "a str or bytes of ISO-8859-1 without control characters",
        ),
        (
            lambda: authorized(as_auth(lambda request: "s3cret€")),
            ValueError,
            "<lambda>() returned a str that cannot be sent as Authorization; ",
        ),
        (
            lambda: authorized(as_auth(lambda request: ("s3cret",))),
            ValueError,
            "<lambda>() returned a tuple that cannot be sent as Authorization; ",
        ),
    ],
)
def test_what_cannot_be_sent_is_refused_and_not_shown(make, kind, text):
    with pytest.raises(kind) as info:
        make()
    assert type(info.value) is kind
    assert str(info.value).startswith(text)
    assert "cret" not in str(info.value)
    assert info.value.__context__ is None or info.value.__suppress_context__


@pytest.mark.parametrize("value", ["s3cret", b"s3cret", ["user", "s3cret"], ("s3cret",), 5, Basic])
def test_what_is_no_auth_is_refused_and_not_shown(value):
    with pytest.raises(TypeError) as info:
        as_auth(value)
    assert str(info.value) == (
        "auth must be None, (user, password), an Auth such as Bearer(token), or a function "
        f"from a request to its Authorization; got {type(value).__name__}"
    )


def test_as_auth_gives_what_is_one_already():
    given = Bearer("x")
    assert as_auth(given) is given
    assert as_auth(None) is None


# netrc

NETRC = """
machine a.test login user password s3cret
machine B.test login other password "with blanks"
machine bücher.test login books password x
machine ::1 login six password x
machine empty.test
machine colon.test login a:b password s3cret
machine tokens.test password only
machine not/a/host login x password y
default login anyone password z
"""


@pytest.fixture
def netrc(tmp_path):
    path = tmp_path / "netrc"
    path.write_text(NETRC, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("http://a.test/", "user:s3cret"),
        ("https://A.test:8443/x", "user:s3cret"),
        ("http://b.test/", "other:with blanks"),
        ("http://bücher.test/", "books:x"),
        ("http://xn--bcher-kva.test/", "books:x"),
        ("http://[::1]:8080/", "six:x"),
        ("http://tokens.test/", ":only"),
        ("http://empty.test/", None),
        ("http://www.a.test/", None),
        ("http://a.test./", None),
        ("http://test/", None),
        ("http://xa.test/", None),
        ("http://default/", None),
    ],
)
def test_netrc_has_credentials_for_a_host_and_no_other(netrc, url, credentials):
    value = authorized(Netrc(netrc), url=url)
    assert (value and b64decode(value.removeprefix("Basic ")).decode()) == credentials


def test_the_default_entry_is_used_when_asked_for(netrc):
    value = authorized(Netrc(netrc, default=True), url="http://else.test/")
    assert b64decode(value.removeprefix("Basic ")) == b"anyone:z"
    assert authorized(Netrc(netrc, default=True)) == authorized(Basic("user", "s3cret"))


def test_an_entry_that_cannot_be_sent_fails_for_its_host_alone(netrc):
    given = Netrc(str(netrc))
    with pytest.raises(
        ValueError, match=r"^a user name for Basic authentication must have no colon"
    ):
        authorized(given, url="http://colon.test/")
    assert repr(given) == "<Netrc>"


def test_the_callers_own_authorization_comes_before_netrc(netrc):
    assert authorized(Netrc(netrc), headers=Fields({"Authorization": "Own"})) == "Own"


def test_a_file_that_is_no_netrc_is_refused_without_its_words(tmp_path):
    path = tmp_path / "netrc"
    path.write_text("machine a.test\nlogin u\npassword my s3cret\nx y")
    with pytest.raises(ValueError, match=r" is not a netrc file: ") as info:
        Netrc(path)
    assert re.fullmatch(
        re.escape(str(path)) + r" is not a netrc file: line \d is not what was expected there\. "
        r"A password with blanks must be in double quotes",
        str(info.value),
    )
    assert info.value.__suppress_context__
    path.write_bytes(b"machine a.test login \xff password s3cret")
    with pytest.raises(ValueError, match=r" is not a netrc file: it must be in UTF-8$"):
        Netrc(path)


def test_a_file_that_is_not_there_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        Netrc(tmp_path / "missing")


@pytest.mark.skipif(os.name != "posix", reason="Windows has other permissions")
def test_the_default_file_must_be_its_owners_alone(netrc, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc.rename(tmp_path / ".netrc")
    (tmp_path / ".netrc").chmod(0o644)
    with pytest.raises(PermissionError) as info:
        Netrc()
    assert str(info.value) == (
        "~/.netrc holds passwords: it must be yours, and no one else may have access to it "
        "(chmod 600 ~/.netrc)"
    )
    (tmp_path / ".netrc").chmod(0o600)
    assert authorized(Netrc()) == authorized(Basic("user", "s3cret"))
