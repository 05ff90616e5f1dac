"""An identity provider for tests: a real server on a port of this machine, with keys of its own, that does as it is told."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from secrets import token_urlsafe
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey

CLIENT = "keywright-test"
SECRET = "not-a-secret&of=anybody"  # with what must be quoted
ANA = {"sub": "248289761001", "email": "ana@globex.example", "email_verified": True, "name": "Ana"}
#: Keys are drawn once: RSA takes its time.
_RSA = RSAKey.generate_key(2048, {"use": "sig"})
_EC = ECKey.generate_key("P-256", {"use": "sig"})


class Issuer:
    """The provider. What it says and does can be changed; ``signed`` makes a token, ``come_back`` the way of a browser."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self.clock = clock
        self.keys: dict[str, tuple[Any, str]] = {"one": (_RSA, "RS256"), "two": (_EC, "ES256")}
        self.hidden: set[str] = set()
        self.person: dict[str, Any] = dict(ANA)
        #: what is changed of a token's claims, its header, and of the document
        self.claims: dict[str, Any] = {}
        self.document: dict[str, Any] = {}
        #: what stands in for the whole answer of a path: a status, headers, and a body
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.make: Callable[[dict[str, Any]], str] = self.signed
        self.lax = False  # a code is answered again and again
        self.asked: list[str] = []
        self.given: dict[str, dict[str, str]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/realms/acme"

    def settings(self, **over: Any) -> dict[str, Any]:
        """The settings of an installation that knows it."""
        return {
            "oidc_issuer": self.url,
            "oidc_client_id": CLIENT,
            "oidc_client_secret": SECRET,
            "oidc_name": "Acme",
            "oidc_domains": "globex.example",
            "oidc_networks": "127.0.0.0/8",
        } | over

    def signed(self, claims: dict[str, Any], kid: str = "one", header: dict[str, Any] | None = None) -> str:
        """A token, as it is right."""
        key, alg = self.keys[kid]
        named = {"alg": alg, "kid": kid} | (header or {})
        return str(jws.serialize_compact(named, json.dumps(claims), key, algorithms=[alg]))

    def come_back(self, location: str, **over: str) -> str:
        """Whom it is told to be signs in where a browser was sent; the target it is sent back to. ``over`` changes the query."""
        asked = dict(parse_qsl(urlsplit(location).query))
        code = token_urlsafe(9)
        self.given[code] = asked
        back = {"code": code, "state": asked["state"], "iss": self.url} | over
        query = urlencode({name: value for name, value in back.items() if value})
        return f"{urlsplit(asked['redirect_uri']).path}?{query}"

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -------------------------------------------------------------------------------------------------------- inside

    def _described(self) -> dict[str, Any]:
        said = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "authorization_response_iss_parameter_supported": True,
        }
        return said | self.document

    def _published(self) -> dict[str, Any]:
        shown = ((kid, key) for kid, (key, _) in self.keys.items() if kid not in self.hidden)
        return {"keys": [{**key.as_dict(private=False), "kid": kid} for kid, key in shown]}

    def _answered(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        pair = f"{CLIENT}:not-a-secret%26of%3Danybody".encode()
        if authorization != f"Basic {base64.b64encode(pair).decode()}":
            return 401, {"error": "invalid_client"}
        asked = self.given.get(form["code"]) if self.lax else self.given.pop(form["code"], None)
        proof = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
        if (
            asked is None
            or asked["redirect_uri"] != form["redirect_uri"]
            or (asked["code_challenge"], asked["code_challenge_method"])
            != (proof.decode().rstrip("="), "S256")
        ):
            return 400, {"error": "invalid_grant"}
        now = self.clock() // 1_000_000
        said = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        said |= {"auth_time": now} if "max_age" in asked else {}
        claims = {
            name: value for name, value in (said | self.person | self.claims).items() if value is not None
        }
        return 200, {"token_type": "Bearer", "access_token": "none", "id_token": self.make(claims)}

    def _page(self, query: str) -> bytes:
        """What a person sees there: one button."""
        back = self.come_back(f"?{query}")
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(parse_qs(query)["redirect_uri"][0]))
        return (
            "<!doctype html><html lang=en><title>Acme</title><h1>Acme</h1>"
            f'<a href="{escape(origin + back)}">Continue as {escape(str(self.person.get("name")))}</a>'
        ).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, _, query = self.path.partition("?")
                name = path.rpartition("/")[2]
                issuer.asked.append(name)
                if name in issuer.answers:
                    self._send(*issuer.answers[name])
                elif name == "openid-configuration":
                    self._json(200, issuer._described())
                elif name == "keys":
                    self._json(200, issuer._published())
                elif name == "authorize":
                    self._send(200, {"Content-Type": "text/html"}, issuer._page(query))
                else:
                    self._send(404, {}, b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                issuer.asked.append("token")
                if "token" in issuer.answers:
                    self._send(*issuer.answers["token"])
                    return
                self._json(*issuer._answered(dict(parse_qsl(body)), self.headers.get("Authorization", "")))

            def _json(self, status: int, document: Any) -> None:
                self._send(status, {"Content-Type": "application/json"}, json.dumps(document).encode())

            def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        return Handler
