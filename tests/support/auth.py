"""A request and a response for the tests of ``Auth``, without a client."""

from __future__ import annotations

from dataclasses import dataclass, field
from http.client import HTTPMessage
from typing import TYPE_CHECKING

from aiohttpconn.client.fields import Fields

if TYPE_CHECKING:
    from aiohttpconn.client.auth.schemes import Auth

__all__ = ["URL", "Request", "Response", "authorized"]

URL = "http://a.test/dir/index.html"


@dataclass
class Request:
    url: str = URL
    method: str = "GET"
    headers: Fields = field(default_factory=Fields)

    @property
    def authorization(self) -> str | None:
        return self.headers.get("Authorization")

    @property
    def target(self) -> str:
        return f"/{self.url.split('/', 3)[3]}"


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
