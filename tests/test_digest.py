"""client/auth/digest.py: the RFCs' vectors, a server that verifies, and challenges of all kinds."""

from __future__ import annotations

import contextvars
import gc
import hashlib
import itertools
import re
import secrets
import time
from urllib.parse import unquote_to_bytes

import hypothesis
import pytest
from hypothesis import strategies as st

from aiohttpconn.client.auth import digest as module
from aiohttpconn.client.auth.digest import Digest

from .support.auth import URL, Request, Response, authorized

# The RFCs' examples


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


# A server that verifies

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


def exchange(digest: Digest, server: Server, url: str = URL, anew: bool = True) -> int:
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
    assert turns == 1 + module.MAX_REPEATS


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
    for n in range(module.MAX_ORIGINS + 10):
        request = Request(f"http://h{n}.test/")
        assert digest.challenged(request, Response.of('Digest realm="r", nonce="n"'))
    for n in range(module.MAX_SENT + 10):
        request = Request(f"http://h99.test/{n}")
        digest.authorize(request)
    assert len(digest._challenges) == module.MAX_ORIGINS
    assert len(digest._sent) == module.MAX_SENT
    assert authorized(digest, url="http://h9.test/") is None
    assert authorized(digest, url="http://h10.test/") is not None


def test_the_target_is_what_is_sent():
    digest = Digest("user", "s3cret")
    request = Request("http://a.test/%C3%A4{b}?c=%zz", method="POST")
    digest.challenged(request, Response.of('Digest realm="r", nonce="n"'))
    digest.authorize(request)
    assert parsed(request.authorization)["uri"] == "/%C3%A4{b}?c=%zz"


# Challenges

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
        ['Digest realm="r", nonce="n", qop="none"'],
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
        'Digest realm="r", nonce=n"',
        'Digest realm="r";nonce="n"',
        "Digest realm=r nonce=n qop=auth",
        'Digest realm="r", nonce=n qop="auth"',
        'Digest realm="r", garbage, nonce="n", qop="auth"',
        'Digest realm="r"x, nonce="n", qop="auth"',
        'Digest realm="r\x01", nonce="n"',
        'Digest realm="r€", nonce="n"',
        'Digest: realm="r", nonce="n"',
        'Digest=realm="r", nonce="n"',
        'realm="r", nonce="n"',
        'Basic realm="r", nonce="n"',
        'Digestrealm="r", nonce="n"',
        'Digest realm="r", nonce="n", qop="auth-int"',
        'Digest realm="r", nonce="n", algorithm=SHA-1',
        'Digest realm="r", nonce="n", algorithm="MD5 "',
        'Digest realm="r", nonce="n", algorithm=MD5-sess',
        'Digest realm="r", nonce="n", algorithm=MD5-sess-sess, qop=auth',
        'Digest realm="r", nonce="n", x="' + "y" * module.MAX_CHALLENGES + '"',
    ],
)
def test_a_challenge_that_is_broken_or_unknown_is_not_answered(challenge):
    assert not answers(challenge)


# What is not usual in the answer; None is a parameter that is missing. curl 7.88.1 sends the same.
SLOPPY = [
    ('Digest realm="r", nonce=bm9uY2U=, qop="auth"', {"nonce": "bm9uY2U="}),
    ('Digest realm="r", nonce=a/b+c==:x, qop="auth"', {"nonce": "a/b+c==:x"}),
    ('Digest nonce="n", qop="auth"', {"realm": ""}),
    ("Digest nonce=n", {"realm": "", "qop": None}),
    ('Digest realm="r" nonce="n" qop="auth"', {}),
    ("Digest realm=my camera, nonce=n, qop=auth", {"realm": "my camera"}),
    (
        "Digest realm='my camera', nonce='n', qop='auth'",
        {"realm": "'my camera'", "nonce": "'n'", "qop": None},
    ),
    ('Digest realm="r", nonce="n', {"qop": None}),
    ('Digest realm="r", nonce="n\\"', {"nonce": 'n"', "qop": None}),
    ('Digest realm="r", nonce="n"; qop=auth', {"qop": None}),
    ('Digest realm="r", nonce="n", opaque=, qop="auth"', {"opaque": ""}),
    ('Digest realm="r", nonce="n", opaque="", qop=""', {"opaque": "", "qop": None}),
    ('Digest realm="r", nonce="n", nonce="m", qop="auth"', {"nonce": "m"}),
    ('Digest realm="a", Realm="b", nonce="n", qop="auth"', {"realm": "b"}),
    ('Digest realm="r", nonce="n", qop=auth,auth-int', {}),
    ('Digest realm="r", nonce="n", qop="auth", algorithm="MD5"', {"algorithm": "MD5"}),
    ('Digest realm="r", nonce="n", qop="auth", algorithm=md5', {"algorithm": "md5"}),
    ('Digest realm="r", nonce="n", qop="auth", garbage', {}),
    ('Digest realm="r", nonce="n", qop="auth", =x', {}),
    ('Digest realm="r", nonce="n", qop="auth", x=\'"', {}),
    ('Digest realm="r", domain=/a /b, nonce="n", qop="auth"', {}),
    ('Basic realm="b", Digest realm="r", nonce=n=, qop="auth"', {"nonce": "n="}),
    ('Digest realm="r", nonce=n=, qop="auth", Basic realm="b"', {"nonce": "n="}),
    ('Digest Realm="r", NONCE="n", QOP="AUTH"', {}),
    ('Digest realm="r", nonce="", qop="auth"', {"nonce": ""}),
]
USUAL = {"username": "user", "realm": "r", "nonce": "n", "uri": "/dir/index.html", "qop": "auth"}


@pytest.mark.parametrize(("challenge", "differences"), SLOPPY)
def test_the_sloppy_challenges_of_devices_are_answered_as_curl_does(challenge, differences):
    digest = Digest("user", "s3cret")
    request = Request()
    assert digest.challenged(request, Response.of(challenge))
    digest.authorize(request)
    answer = parsed(request.authorization)
    response, cnonce, nc = answer.pop("response"), answer.pop("cnonce", ""), answer.pop("nc", "")
    assert answer == {
        name: value for name, value in (USUAL | differences).items() if value is not None
    }
    ha1 = hashlib.md5(f"user:{answer['realm']}:s3cret".encode()).hexdigest()
    ha2 = hashlib.md5(b"GET:/dir/index.html").hexdigest()
    middle = f"{nc}:{cnonce}:auth:" if "qop" in answer else ""
    whole = f"{ha1}:{answer['nonce']}:{middle}{ha2}"
    assert response == hashlib.md5(whole.encode()).hexdigest()


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
    module._challenges(field)
    # 0.2 to 3 ms; what is quadratic takes a second and more.
    assert time.process_time() - start < 0.1
