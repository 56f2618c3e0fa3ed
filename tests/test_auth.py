"""client/auth.py: the RFCs' vectors, a server that verifies, and challenges of all kinds."""

from __future__ import annotations

import contextvars
import functools
import gc
import hashlib
import itertools
import os
import re
import secrets
import time
from base64 import b64decode
from dataclasses import dataclass, field
from http.client import HTTPMessage
from urllib.parse import unquote_to_bytes

import hypothesis
import pytest
from hypothesis import strategies as st

from aiohttpconn.client import auth
from aiohttpconn.client.auth import Auth, Basic, Bearer, Digest, Netrc, of
from aiohttpconn.client.fields import Fields

URL = "http://a.test/dir/index.html"


@dataclass
class Request:
    url: str = URL
    method: str = "GET"
    headers: Fields = field(default_factory=Fields)

    @property
    def authorization(self) -> str | None:
        return self.headers.get("Authorization")


@dataclass
class Response:
    status: int
    headers: HTTPMessage

    @classmethod
    def of(cls, *challenges: str, status: int = 401) -> Response:
        message = HTTPMessage()
        for challenge in challenges:
            message.add_header("WWW-Authenticate", challenge)
        return cls(status, message)


def authorized(given: Auth, **keywords) -> str | None:
    request = Request(**keywords)
    given.authorize(request)
    return request.authorization


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
    assert authorized(of((username, password))) == value


@pytest.mark.parametrize("token", ["mF_9.B5f-4.1JqM", "a~+/b==", "x"])
def test_bearer(token):
    assert authorized(Bearer(token)) == f"Bearer {token}"


@pytest.mark.parametrize("value", ["Custom xyz", b"Custom xyz"])
def test_a_function_is_called_for_each_request(value):
    seen = []

    def function(request):
        seen.append(request.url)
        return value

    given = of(function)
    assert authorized(given, url="http://a.test/1") == "Custom xyz"
    assert authorized(given, url="http://a.test/2") == "Custom xyz"
    assert seen == ["http://a.test/1", "http://a.test/2"]
    assert authorized(of(lambda request: None)) is None


def made() -> list[Auth]:
    """Return one of each, the Digest with a challenge to answer."""
    digest = Digest("user", "s3cret")
    assert digest.challenged(Request(), Response.of('Digest realm="r", nonce="n"'))
    return [Basic("user", "s3cret"), Bearer("s3cret"), of(lambda request: "s3cret"), digest]


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
            "a user name for Basic authentication may have no colon (RFC 7617 §2)",
        ),
        (lambda: Basic("s3\ncret", ""), ValueError, "a user name may have no control character"),
        (lambda: Basic("", "s3\0cret"), ValueError, "a password may have no control character"),
        (lambda: Basic("", "s3cret\x7f"), ValueError, "a password may have no control character"),
        (lambda: Basic("", "s3cret\udc80"), ValueError, "a password must be encodable as UTF-8"),
        (lambda: Basic("", b"s3cret"), TypeError, "a password must be a str, not bytes"),
        (lambda: Digest("s3cret\r", ""), ValueError, "a user name may have no control character"),
        (lambda: Digest(None, ""), TypeError, "a user name must be a str, not NoneType"),
        (
            lambda: Bearer("s3cret "),
            ValueError,
            "a bearer token is of letters, digits and -._~+/, and = at its end (RFC 6750 §2.1)",
        ),
        (lambda: Bearer("=s3cret"), ValueError, "a bearer token is of letters"),
        (lambda: Bearer(""), ValueError, "a bearer token is of letters"),
        (lambda: Bearer("s3cret\n"), ValueError, "a bearer token may have no control character"),
        (lambda: Bearer(b"s3cret"), TypeError, "a bearer token must be a str, not bytes"),
        (
            lambda: authorized(of(functools.partial(lambda secret, request: secret, "s3cret\r\n"))),
            ValueError,
            "partial() gave a str that cannot be sent as Authorization; it must return None or a "
            "str or bytes of ISO-8859-1 without control characters",
        ),
        (
            lambda: authorized(of(lambda request: "s3cret€")),
            ValueError,
            "<lambda>() gave a str that cannot be sent as Authorization; ",
        ),
        (
            lambda: authorized(of(lambda request: ("s3cret",))),
            ValueError,
            "<lambda>() gave a tuple that cannot be sent as Authorization; ",
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


async def _async_function(request):
    return None


@pytest.mark.parametrize(
    "value", ["s3cret", b"s3cret", ["user", "s3cret"], ("s3cret",), 5, Basic, _async_function]
)
def test_what_is_no_auth_is_refused_and_not_shown(value):
    with pytest.raises(TypeError) as info:
        of(value)
    assert str(info.value) == (
        "auth must be None, (user, password), an Auth such as Bearer(token), or a function, no "
        f"async one, from a request to its Authorization, not {type(value).__name__}"
    )


def test_of_gives_what_is_one_already():
    given = Bearer("x")
    assert of(given) is given
    assert of(None) is None


# Digest: the RFCs' examples


def answer_to(digest, challenge, monkeypatch, cnonce, **keywords) -> dict[str, str]:
    monkeypatch.setattr(secrets, "token_hex", lambda size: cnonce)
    request = Request(**keywords)
    digest.authorize(request)
    assert request.authorization is None
    assert digest.challenged(request, Response.of(*challenge))
    digest.authorize(request)
    return parsed(request.authorization)


def parsed(authorization: str) -> dict[str, str]:
    """Return the parameters of a Digest Authorization, as a server reads them."""
    assert authorization.startswith("Digest ")
    pattern = r'([a-z]+\*?)=(?:"((?:[^"\\]|\\.)*)"|([^", ]+))(?:, |$)'
    rest = authorization.removeprefix("Digest ")
    assert re.fullmatch(f"(?:{pattern})+", rest)
    found = re.findall(pattern, rest)
    assert len({name for name, _, _ in found}) == len(found)
    return {name: re.sub(r"\\(.)", r"\1", quoted) or bare for name, quoted, bare in found}


RFC_7616 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_rfc_7616_section_3_9_1(algorithm, response, monkeypatch):
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    digest = Digest("Mufasa", "Circle of Life")
    assert answer_to(digest, [RFC_7616.format(algorithm)], monkeypatch, cnonce) == {
        "username": "Mufasa",
        "realm": "http-auth@example.org",
        "uri": "/dir/index.html",
        "algorithm": algorithm,
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "nc": "00000001",
        "cnonce": cnonce,
        "qop": "auth",
        "response": response,
        "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
    }


@pytest.mark.skipif("sha512_256" not in hashlib.algorithms_available, reason="no SHA-512/256")
def test_rfc_7616_section_3_9_2(monkeypatch):
    challenge = (
        'Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, '
        'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", '
        'opaque="HRPCssKJSGjCrkzDg8OhwBzCiGPChXYjwrI2QmXDnsOS", charset=UTF-8, userhash=true'
    )
    cnonce = "NTg6RKcb9boFIAS3KrFK9BGeh+niz/sm"
    digest = Digest("J\u00e4s\u00f8n Doe", "Secret, or not?")
    url = "http://api.example.org/doe.json"
    answer = answer_to(digest, [challenge], monkeypatch, cnonce, url=url)
    # The RFC has hashed with SHA-512, cut to 256 bits: erratum 4897. The user name's hash is
    # the erratum's; the response is worked out here.
    user = "J\u00e4s\u00f8n Doe:api@example.org"
    assert hashlib.sha512(user.encode()).hexdigest()[:64] == (
        "488869477bf257147b804c45308cd62ac4e25eb717b12b298c79e62dcea254ec"
    )
    assert answer["username"] == "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
    assert answer["userhash"] == "true"
    ha1 = hashlib.new("sha512_256", f"{user}:Secret, or not?".encode()).hexdigest()
    ha2 = hashlib.new("sha512_256", b"GET:/doe.json").hexdigest()
    nonce = "5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK"
    whole = f"{ha1}:{nonce}:00000001:{cnonce}:auth:{ha2}"
    assert answer["response"] == hashlib.new("sha512_256", whole.encode()).hexdigest()


def test_rfc_2617_section_3_5(monkeypatch):
    challenge = (
        'Digest realm="testrealm@host.com", qop="auth,auth-int", '
        'nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", opaque="5ccc069c403ebaf9f0171e9517f40e41"'
    )
    digest = Digest("Mufasa", "Circle Of Life")
    answer = answer_to(digest, [challenge], monkeypatch, "0a4f113b")
    assert answer["response"] == "6629fae49393a05397450978507c4ef1"
    assert "algorithm" not in answer


def test_rfc_2069_section_2_4(monkeypatch):
    # As corrected by erratum 749.
    challenge = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'
    digest = Digest("Mufasa", "CircleOfLife")
    assert answer_to(digest, [challenge], monkeypatch, "unused") == {
        "username": "Mufasa",
        "realm": "testrealm@host.com",
        "nonce": "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        "uri": "/dir/index.html",
        "response": "1949323746fe6a43ef61f9606e7febea",
    }


# Digest: a server that verifies

HASHES = {
    "MD5": hashlib.md5,
    "SHA-256": hashlib.sha256,
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data),
}
ALGORITHMS = [name for name in HASHES if name != "SHA-512-256"]
if "sha512_256" in hashlib.algorithms_available:
    ALGORITHMS.append("SHA-512-256")
ALGORITHMS += [f"{name}-sess" for name in ALGORITHMS]


class Server:
    """Challenges and verifies as RFC 7616 says; ``log`` has what it has thought of requests."""

    def __init__(
        self,
        username: str = "user",
        password: str = "s3cret",
        *,
        realm: str = "r",
        algorithm: str | None = "SHA-256",
        qop: str | None = "auth",
        utf8: bool = False,
        userhash: bool = False,
        uses: int = 1000,
    ) -> None:
        self.username = username.encode()
        self.password = password.encode()
        self.realm = realm
        self.algorithm = algorithm
        self.qop = qop
        self.utf8 = utf8
        self.userhash = userhash
        # How often a nonce is good.
        self.uses = uses
        self.counts: dict[str, int] = {}
        self.sessions: dict[str, bytes] = {}
        self.log: list[str] = []

    def hash(self, *parts: bytes) -> bytes:
        name = (self.algorithm or "MD5").removesuffix("-sess")
        return HASHES[name](b":".join(parts)).hexdigest().encode()

    def respond(self, request: Request) -> Response:
        self.log.append(self.judge(request))
        if self.log[-1] == "good":
            return Response.of(status=200)
        return Response.of(self.challenge(stale=self.log[-1] == "stale"))

    def challenge(self, stale: bool = False) -> str:
        nonce = f"nonce{len(self.counts)}"
        self.counts[nonce] = 0
        realm = self.realm.replace("\\", r"\\").replace('"', r"\"")
        challenge = f'Digest realm="{realm}", nonce="{nonce}", opaque="o\\"p"'
        if self.algorithm:
            challenge += f", algorithm={self.algorithm}"
        if self.qop:
            challenge += f', qop="{self.qop}"'
        if self.utf8:
            challenge += ", charset=UTF-8"
        if self.userhash:
            challenge += ", userhash=true"
        return f"{challenge}, stale=TRUE" if stale else challenge

    def judge(self, request: Request) -> str:
        if request.authorization is None:
            return "bare"
        given = parsed(request.authorization)
        if given["nonce"] not in self.counts:
            return "unknown nonce"
        assert given["realm"] == self.realm
        assert given["opaque"] == 'o"p'
        assert given.get("algorithm") == self.algorithm
        self.counts[given["nonce"]] += 1
        count = self.counts[given["nonce"]]
        if count > self.uses:
            return "stale"
        user = self.hash(self.username, self.realm.encode("latin-1"))
        if self.userhash:
            right = given["username"].encode() == user and given["userhash"] == "true"
        elif "username*" in given:
            assert self.utf8
            assert given["username*"].startswith("UTF-8''")
            right = unquote_to_bytes(given["username*"][7:]) == self.username
        else:
            right = given["username"].encode("latin-1") == self.username
        nonce = given["nonce"].encode()
        cnonce = given.get("cnonce", "").encode()
        ha1 = self.hash(self.username, self.realm.encode("latin-1"), self.password)
        if (self.algorithm or "").endswith("-sess"):
            if count == 1:
                self.sessions[given["nonce"]] = self.hash(ha1, nonce, cnonce)
            ha1 = self.sessions[given["nonce"]]
        ha2 = self.hash(request.method.encode(), given["uri"].encode())
        assert request.url.endswith(given["uri"])
        if self.qop:
            assert given["qop"] == "auth"
            assert given["nc"] == f"{count:08x}"
            expected = self.hash(ha1, nonce, given["nc"].encode(), cnonce, b"auth", ha2)
        else:
            assert not {"qop", "nc", "cnonce"} & set(given)
            expected = self.hash(ha1, nonce, ha2)
        return "good" if right and given["response"].encode() == expected else "wrong"


def exchange(digest: Auth, server: Server, url: str = URL, anew: bool = True) -> int:
    """Send a request as the client does, and again as long as *digest* wants it.

    *anew*: the request that is sent again is another object.
    """
    request = Request(url)
    for _ in range(20):
        digest.authorize(request)
        response = server.respond(request)
        if not digest.challenged(request, response):
            return response.status
        if anew:
            request = Request(url)
    raise AssertionError("there is no end to it")


@pytest.mark.parametrize(
    ("algorithm", "qop"),
    [
        *itertools.product([None, *ALGORITHMS], ["auth", "auth-int, auth", "AUTH"]),
        *[(algorithm, None) for algorithm in [None, "MD5", "SHA-256"]],
    ],
)
def test_a_server_is_satisfied(algorithm, qop):
    server = Server(algorithm=algorithm, qop=qop)
    digest = Digest("user", "s3cret")
    assert [exchange(digest, server, f"{URL}?{n}") for n in range(3)] == [200, 200, 200]
    # The second and third request have not been challenged.
    assert server.log == ["bare", "good", "good", "good"]


TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=8)


@hypothesis.given(
    username=TEXT,
    password=TEXT,
    realm=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")),
    algorithm=st.sampled_from(ALGORITHMS),
    utf8=st.booleans(),
    userhash=st.booleans(),
)
def test_a_server_is_satisfied_whatever_the_names(
    username, password, realm, algorithm, utf8, userhash
):
    from unicodedata import normalize

    server = Server(
        normalize("NFC", username),
        normalize("NFC", password),
        realm=realm.strip(),
        algorithm=algorithm,
        utf8=utf8,
        userhash=userhash,
    )
    assert exchange(Digest(username, password), server) == 200


@pytest.mark.parametrize(
    ("username", "attributes", "sent"),
    [
        ("Doe", "", 'username="Doe"'),
        ("Doe", ", charset=utf-8", 'username="Doe"'),
        ('D"o\\e', "", 'username="D\\"o\\\\e"'),
        ("J\u00e4s\u00f8n Doe", ", charset=utf-8", "username*=UTF-8''J%C3%A4s%C3%B8n%20Doe"),
        ("J\u00e4s\u00f8n", "", 'username="J\xc3\xa4s\xc3\xb8n"'),
        ("J\u00e4s\u00f8n", ", charset=latin-1", 'username="J\xc3\xa4s\xc3\xb8n"'),
        ("Doe", ", userhash=TRUE", 'username="66db3c50f52c91ad816aadb36f8cb736"'),
    ],
)
def test_how_the_user_is_named(username, attributes, sent):
    digest = Digest(username, "s3cret")
    request = Request()
    assert digest.challenged(request, Response.of(f'Digest realm="r", nonce="n"{attributes}'))
    digest.authorize(request)
    assert request.authorization.startswith(f"Digest {sent}, realm=")


@pytest.mark.parametrize("anew", [True, False])
def test_a_wrong_password_is_tried_once_per_request(anew):
    server = Server(password="other")
    digest = Digest("user", "s3cret")
    assert exchange(digest, server, anew=anew) == 401
    assert server.log == ["bare", "wrong"]
    assert exchange(digest, server, anew=anew) == 401
    assert server.log == ["bare", "wrong"] * 2


@pytest.mark.parametrize("anew", [True, False])
def test_a_stale_nonce_is_replaced(anew):
    server = Server(uses=2)
    digest = Digest("user", "s3cret")
    assert [exchange(digest, server, anew=anew) for _ in range(5)] == [200] * 5
    assert server.log == ["bare", "good", "good", "stale", "good", "good", "stale", "good"]


@pytest.mark.parametrize("anew", [True, False])
def test_a_nonce_that_the_server_has_forgotten_is_replaced(anew):
    server = Server()
    digest = Digest("user", "s3cret")
    assert exchange(digest, server, anew=anew) == 200
    server.counts.clear()
    server.counts["nonce"] = 0
    assert exchange(digest, server, anew=anew) == 200
    assert server.log == ["bare", "good", "unknown nonce", "good"]


@pytest.mark.parametrize("anew", [True, False])
def test_a_server_for_which_every_nonce_is_stale_is_given_up(anew):
    server = Server(uses=0)
    digest = Digest("user", "s3cret")
    assert exchange(digest, server, anew=anew) == 401
    assert server.log == ["bare", "stale", "stale", "stale"]


class Task:
    """A request in a context of its own, as each task has one."""

    def __init__(self, digest: Digest, url: str) -> None:
        self.digest = digest
        self.request = Request(url)
        self.context = contextvars.copy_context()

    def authorize(self) -> Request:
        self.request = Request(self.request.url)
        self.context.run(self.digest.authorize, self.request)
        return self.request

    def challenged(self, response: Response) -> bool:
        return self.context.run(self.digest.challenged, self.request, response)


def test_requests_at_the_same_time_share_a_nonce():
    server = Server()
    digest = Digest("user", "s3cret")
    tasks = [Task(digest, f"{URL}?{n}") for n in range(8)]
    for turn in ("bare", "good"):
        responses = [server.respond(request) for request in [task.authorize() for task in tasks]]
        assert server.log == [turn] * 8
        server.log.clear()
        pairs = zip(tasks, responses, strict=True)
        assert [task.challenged(response) for task, response in pairs] == [turn == "bare"] * 8
    assert max(server.counts.values()) == 8


def test_requests_at_the_same_time_try_a_wrong_password_once_each():
    server = Server(password="other")
    challenge = server.challenge()
    digest = Digest("user", "s3cret")
    tasks = [Task(digest, URL) for n in range(8)]
    for turn in ("bare", "wrong"):
        requests = [task.authorize() for task in tasks]
        assert [server.judge(request) for request in requests] == [turn] * 8
        again = [task.challenged(Response.of(challenge)) for task in reversed(tasks)]
        assert again == [turn == "bare"] * 8


def test_requests_at_the_same_time_give_up_a_server_for_which_every_nonce_is_stale():
    server = Server(uses=0)
    challenge = f"{server.challenge(stale=True)}"
    digest = Digest("user", "s3cret")
    tasks = [Task(digest, URL) for n in range(8)]
    turns = 0
    while tasks:
        turns += 1
        for task in tasks:
            task.authorize()
        tasks = [task for task in tasks if task.challenged(Response.of(challenge))]
    assert turns == 1 + auth.MAX_REPEATS


def test_a_request_that_was_not_sent_again_counts_for_no_other():
    server = Server()
    digest = Digest("user", "s3cret")
    assert digest.challenged(Request(), server.respond(Request()))
    other = Request(f"{URL}?other")
    digest.authorize(other)
    assert digest.challenged(other, Response.of(server.challenge()))


def test_origins_have_their_own_challenges():
    servers = {f"http://{name}.test/": Server(realm=name) for name in "abc"}
    digest = Digest("user", "s3cret")
    for url, server in [*servers.items(), *servers.items()]:
        assert exchange(digest, server, url) == 200
    assert authorized(digest, url="http://a.test:8080/") is None
    assert authorized(digest, url="https://a.test/") is None
    assert [server.log for server in servers.values()] == [["bare", "good", "good"]] * 3


def test_a_request_that_moves_to_another_origin_takes_no_answer_along():
    server = Server()
    digest = Digest("user", "s3cret")
    request = Request()
    assert digest.challenged(request, server.respond(request))
    digest.authorize(request)
    assert request.authorization.startswith("Digest username=")
    request.url = "http://evil.test/"
    digest.authorize(request)
    assert request.authorization is None


def test_an_answer_is_made_anew_when_a_request_is_sent_again():
    server = Server()
    digest = Digest("user", "s3cret")
    exchange(digest, server)
    request = Request()
    digest.authorize(request)
    request.url = f"{URL}?next"
    digest.authorize(request)
    assert parsed(request.authorization)["uri"] == "/dir/index.html?next"
    assert parsed(request.authorization)["nc"] == "00000003"


def test_what_is_remembered_is_bounded():
    digest = Digest("user", "s3cret")
    for n in range(auth.MAX_ORIGINS + 10):
        request = Request(f"http://h{n}.test/")
        assert digest.challenged(request, Response.of('Digest realm="r", nonce="n"'))
    for n in range(auth.MAX_SENT + 10):
        request = Request(f"http://h99.test/{n}")
        digest.authorize(request)
    assert len(digest._challenges) == auth.MAX_ORIGINS
    assert len(digest._sent) == auth.MAX_SENT
    assert authorized(digest, url="http://h9.test/") is None
    assert authorized(digest, url="http://h10.test/") is not None


def test_the_target_is_what_is_sent():
    digest = Digest("user", "s3cret")
    request = Request("http://user:pw@a.test/ä b?c=%zz#frag", method="POST")
    digest.challenged(request, Response.of('Digest realm="r", nonce="n"'))
    digest.authorize(request)
    assert parsed(request.authorization)["uri"] == "/%C3%A4%20b?c=%25zz"


# Digest: challenges

GOOD = 'Digest realm="r", nonce="n"'


def answers(*challenges: str) -> bool:
    return Digest("user", "s3cret").challenged(Request(), Response.of(*challenges))


@pytest.mark.parametrize(
    "fields",
    [
        ['Digest realm="r", nonce="n"'],
        ["Digest realm=r,nonce=n"],
        ['digest REALM = r ,\tNonce\t=\t"n" ,, '],
        ['Digest\trealm="r", nonce="n"'],
        [' , Digest realm="r", nonce="n"'],
        ['Digest realm="", nonce="n"'],
        ['Digest realm="r", nonce="n", qop=""'],
        ['Digest realm="r", nonce="n", qop="auth-int,auth", algorithm=mD5-sEss'],
        ['Digest realm="r", nonce="n", unknown="x", another=y'],
        ['Digest realm="r", nonce="n", domain="/ http://x.test/"'],
        ['Basic realm="r"', GOOD],
        [f'Basic realm="r", {GOOD}'],
        [f'{GOOD}, Basic realm="r"'],
        [f"Negotiate YII=, NTLM, {GOOD}, Bearer"],
        [f"Negotiate, {GOOD}"],
        ['Basic realm="x, Digest y=z"', GOOD],
        ["\x01", GOOD],
        ["Basic realm=", GOOD],
        ['Digest realm="r", nonce="n", algorithm=SHA-1', GOOD],
    ],
)
def test_a_challenge_is_found(fields):
    assert answers(*fields)


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        ",",
        "Digest",
        "Digest abc==",
        'Digest realm="r"',
        'Digest nonce="n"',
        'Digest realm="r" nonce="n"',
        'Digest realm="r", nonce="n',
        'Digest realm="r", nonce=n"',
        'Digest realm="r", nonce="n"x',
        'Digest realm="r", nonce="n\\"',
        'Digest realm="r", nonce=',
        'Digest realm="r", nonce="n", opaque="o',
        'Digest realm="r", nonce="n", opaque = "o',
        'Digest realm="r", nonce="n", =x',
        'Digest realm="r", nonce="n"; qop=auth',
        'Digest realm="r", nonce="n", nonce="m"',
        'Digest realm="r", nonce="n", NONCE="n"',
        'Digest realm="r\x01", nonce="n"',
        'Digest realm="r€", nonce="n"',
        'Digest: realm="r", nonce="n"',
        'Digest=realm="r", nonce="n"',
        'realm="r", nonce="n"',
        'Basic realm="r", nonce="n"',
        'Digestrealm="r", nonce="n"',
        'Digest realm="r", nonce="n", qop="auth-int"',
        'Digest realm="r", nonce="n", qop="none"',
        'Digest realm="r", nonce="n", algorithm=SHA-1',
        'Digest realm="r", nonce="n", algorithm="MD5 "',
        'Digest realm="r", nonce="n", algorithm=MD5-sess',
        'Digest realm="r", nonce="n", algorithm=MD5-sess-sess, qop=auth',
        'Digest realm="r", nonce="n", x="' + "y" * auth.MAX_CHALLENGES + '"',
    ],
)
def test_a_challenge_that_is_broken_or_unknown_is_not_answered(challenge):
    assert not answers(challenge)


def test_no_more_than_8_kib_of_challenges_are_read():
    filler = "Basic x=" + "y" * 4000
    assert answers(filler, filler, GOOD)
    assert answers(filler, "Basic x=" + "y" * (8192 - 4008 - 8 - len(GOOD)), GOOD)
    assert not answers(filler, "Basic x=" + "y" * (8193 - 4008 - 8 - len(GOOD)), GOOD)
    assert not answers(filler, filler, filler, GOOD)
    assert not answers()


@pytest.mark.parametrize("status", [200, 400, 403, 407, 500])
def test_only_a_401_is_a_challenge(status):
    request = Request()
    response = Response.of(GOOD, status=status)
    assert not Digest("user", "s3cret").challenged(request, response)
    assert request.authorization is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("separate", [True, False])
def test_the_strongest_challenge_is_answered(order, separate, monkeypatch):
    found = [
        'Digest realm="r", nonce="n1", algorithm=MD5',
        'Digest realm="r", nonce="n2", algorithm=SHA-256-sess, qop=auth',
        'Basic realm="r"',
    ]
    found = [found[n] for n in order]
    digest = Digest("user", "s3cret")
    answer = answer_to(digest, found if separate else [", ".join(found)], monkeypatch, "c")
    assert (answer["nonce"], answer["algorithm"]) == ("n2", "SHA-256-sess")


def test_of_equal_challenges_the_first_is_answered(monkeypatch):
    found = ['Digest realm="r1", nonce="n"', 'Digest realm="r2", nonce="n", algorithm=MD5']
    assert answer_to(Digest("user", "s3cret"), found, monkeypatch, "c")["realm"] == "r1"


def test_a_hash_that_hashlib_does_not_have_is_not_answered(monkeypatch):
    new = hashlib.new

    def without_md5(name, data=b""):
        if name == "md5":
            raise ValueError("[digital envelope routines] unsupported")
        return new(name, data)

    monkeypatch.setattr(hashlib, "new", without_md5)
    assert not answers(GOOD)
    assert answers(GOOD, f"{GOOD}, algorithm=SHA-256")


@hypothesis.given(st.lists(st.text(st.characters(max_codepoint=300))))
def test_no_challenge_raises(fields):
    challenges_are_harmless(fields)


PIECES = ["Digest", "Basic", " ", ",", "=", '"', "\\", "realm=", 'nonce="n"', "qop=auth", "r", "\t"]


@hypothesis.given(st.lists(st.lists(st.sampled_from(PIECES)).map("".join)))
def test_no_challenge_of_likely_pieces_raises(fields):
    challenges_are_harmless(fields)


def challenges_are_harmless(fields: list[str]) -> None:
    request = Request()
    digest = Digest("user", "s3cret")
    if digest.challenged(request, Response.of(*fields)):
        digest.authorize(request)
        parsed(request.authorization)
    else:
        assert request.authorization is None


@pytest.mark.parametrize(
    "field",
    [
        "Digest " + "a" * 8000,
        "Digest " + " " * 8000 + "x",
        "Digest" + ", " * 4000 + ";",
        "Digest " + "a=b, " * 1600 + "=",
        "Digest " + "".join(f"a{n}=b, " for n in range(900)),
        'Digest a="' + "\\" * 8000,
        'Digest a="' + "b" * 8000,
        "a" + " a" * 4000,
        "a" + " a=" * 2600,
        "a=" * 4000,
        "=" * 8000,
        "a " + "=" * 8000,
        "a b" + "=" * 8000 + "x",
        "a b" + " " * 8000 + "x",
        "a b=c" + " " * 8000 + "x",
        "Digest realm=r, nonce=n, " * 300,
    ],
)
def test_challenges_are_read_in_linear_time(field):
    gc.collect()
    start = time.process_time()
    auth._challenges(field)
    # 0.2 to 3 ms; what is quadratic takes a second and more.
    assert time.process_time() - start < 0.1


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
        ValueError, match=r"^a user name for Basic authentication may have no colon"
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
