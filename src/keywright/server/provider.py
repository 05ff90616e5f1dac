"""The company's identity provider (OpenID Connect): where people are sent, and what is believed of what comes back.

The issuer is the one of the settings, and its own document must say so. Its keys and its answer to a code are asked for
over checked connections (``post``): no redirect, so many bytes, a deadline, and no address inside but of the networks that
the settings name. A token is believed that is signed by a current key of the provider, by one of four algorithms whatever a
key or a header says, for this installation, now, and for the very sign-in that this browser has begun.
"""

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import JWKRegistry, Key
from joserfc.jws import JWSRegistry

from keywright import addresses
from keywright.desk import fields
from keywright.desk.identities import Vouched
from keywright.errors import Invalid, Unavailable
from keywright.post import Closed, Outcome, Post
from keywright.server.errand import Errand
from keywright.settings import Settings
from keywright.times import SECOND

#: The algorithms that a token may be signed by, and the type of key that each is of.
ALGORITHMS: Final = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
#: How long the provider's document and keys are believed, and how often they are asked for at most, in seconds.
BELIEVED: Final = 3600.0
PAUSE: Final = 60.0
#: How far the provider's clock may be off, and how old a token may be, in seconds.
LEEWAY: Final = 60
OLDEST: Final = 600
_PATIENCE: Final = 5.0  # seconds
_REST: Final = 5.0  # seconds, after a failure
_LONGEST: Final = 4096  # characters of a code
_LONGEST_NAME: Final = 100  # characters, of what a browser has to carry
_LEAST_RSA: Final = 256  # bytes of a modulus
#: What ``acr`` says where more than a password was seen: OpenID's, REFEDS', and the one of PAPE.
_STRONG: Final = frozenset(
    {
        "phr",
        "phrh",
        "https://refeds.org/profile/mfa",
        "http://schemas.openid.net/pape/policies/2007/06/multi-factor",
    }
)
#: What ``amr`` (RFC 8176) calls something that is known, and something that is had or is.
_KNOWN: Final = frozenset({"pwd", "pin", "kba"})
_HAD: Final = frozenset({"otp", "hwk", "swk", "sc", "sms", "tel", "face", "fpt", "iris", "retina", "vbm"})

log = logging.getLogger("keywright")


class Astray(Exception):
    """What came back is not what must come back; nobody is let in. The message is for the log, and holds no secret."""


class Document(NamedTuple):
    """What a provider publishes of itself: where people are sent, where a code is answered, and where its keys are."""

    authorization: str
    token: str
    keys: str
    by_post: bool  # it wants the client's secret in the body, and not in a header
    names_itself: bool  # it says who it is when it sends somebody back (RFC 9207)
    has_groups: bool  # it knows a scope called groups


class Provider:
    """An identity provider. Nothing is asked before somebody signs in. Safe to use from any thread."""

    def __init__(
        self, settings: Settings, *, post: Post | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._post = post or Post(settings.oidc_networks, patience=_PATIENCE)
        self._clock = clock
        self._lock = Lock()
        self._document: Document | None = None
        self._keys: Sequence[Key] = ()
        self._known_at: float | None = None
        self._asked_at: float | None = None
        self._failed_at: float | None = None

    @property
    def issuer(self) -> str:
        """How it names itself."""
        return self._settings.oidc_issuer

    def address(self, errand: Errand) -> str:
        """Where a browser is sent on an errand. Raises ``Unavailable``."""
        document = self._current()
        scopes = ["openid", "email", "profile"] + (["groups"] if document.has_groups else [])
        asked = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id,
            "redirect_uri": errand.back,
            "scope": " ".join(scopes),
            "state": errand.state,
            "nonce": errand.nonce,
            "code_challenge": challenge(errand.verifier),
            "code_challenge_method": "S256",
        }
        if errand.session:
            asked |= {"prompt": "login", "max_age": "0"}
        return f"{document.authorization}{'&' if '?' in document.authorization else '?'}{urlencode(asked)}"

    def vouch(self, answer: Mapping[str, str], errand: Errand, now: int) -> Vouched:
        """Whom the provider means by the answer that a browser brought back from an errand.

        Raises ``Astray``, or ``Unavailable`` where the provider does not answer.
        """
        document, code = self._current(), answer.get("code", "")
        named = answer.get("iss", "")
        if (named or document.names_itself) and named != self.issuer:
            raise Astray("the answer names another issuer")
        if not 0 < len(code) <= _LONGEST or not code.isprintable():
            raise Astray("the answer holds no code")
        claims = self._claims(self._exchange(document, code, errand))
        check(claims, self.issuer, self._settings.oidc_client_id, errand, now)
        return read(claims, self._settings)

    def look(self) -> str:
        """Ask for document and keys, and say in a sentence what there is. Raises ``Unavailable``."""
        self._current()
        kinds = sorted({key.key_type for key in self._keys})
        return f"{self.issuer} answers, with {len(self._keys)} keys ({', '.join(kinds)})"

    # -------------------------------------------------------------------------------------------------- what it says

    def _current(self) -> Document:
        with self._lock:
            now = self._clock()
            if not _within(self._known_at, BELIEVED, now):
                self._ask(now)
            assert self._document is not None
            return self._document

    def _ask(self, now: float) -> None:
        """Ask for all of it; who asks right after a failure is not made to wait for another one."""
        if _within(self._failed_at, _REST, now):
            raise Unavailable("the provider did not answer a moment ago")
        self._asked_at = now
        try:
            document = self._described()
            self._keys = self._published(document)
        except Unavailable:
            self._failed_at = self._clock()
            raise
        self._document, self._known_at = document, now

    def _described(self) -> Document:
        said = self._asked(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if said.get("issuer") != self.issuer:
            raise Unavailable("the provider's document names another issuer")
        ways = _listed(said, "token_endpoint_auth_methods_supported")
        return Document(
            authorization=self._place(said, "authorization_endpoint"),
            token=self._place(said, "token_endpoint"),
            keys=self._place(said, "jwks_uri"),
            by_post="client_secret_basic" not in ways and "client_secret_post" in ways,
            names_itself=said.get("authorization_response_iss_parameter_supported") is True,
            has_groups="groups" in _listed(said, "scopes_supported"),
        )

    def _place(self, said: Mapping[str, Any], name: str) -> str:
        url = said.get(name)
        if not isinstance(url, str):
            raise Unavailable(f"the provider's document has no {name}")
        self._target(url)
        return url

    def _published(self, document: Document) -> Sequence[Key]:
        listed = self._asked(document.keys).get("keys")
        found = [key for one in listed if (key := _key(one)) is not None] if isinstance(listed, list) else []
        if not found:
            raise Unavailable("the provider publishes no key that its tokens could be signed by")
        return found

    def _signer(self, kid: object, kind: str) -> Key:
        """The one key that a token can be signed by; for an unknown one the keys are asked for anew, once a minute."""
        with self._lock:
            found = _named(self._keys, kid, kind)
            if found is None and self._document is not None:
                now = self._clock()
                if not _within(self._asked_at, PAUSE, now):
                    self._asked_at = now
                    self._keys = self._published(self._document)
                    found = _named(self._keys, kid, kind)
        if found is None:
            raise Astray("the token is signed by a key that the provider does not publish")
        return found

    def _claims(self, token: str) -> dict[str, Any]:
        """What a token says, once its signature is proven."""
        try:
            header = jws.extract_compact(token.encode(), registry=_REGISTRY).headers()
            kind = ALGORITHMS.get(str(header.get("alg")))
            if kind is None:
                raise Astray("the token is signed by an algorithm that is not one of the list")
            signer = self._signer(header.get("kid"), kind)
            proven = jws.deserialize_compact(token.encode(), signer, registry=_REGISTRY)
            claims = json.loads(proven.payload)
        except (JoseError, ValueError, RecursionError) as wrong:
            raise Astray(f"the token is not proven: {type(wrong).__name__}") from None
        if not isinstance(claims, dict):
            raise Astray("the token says nothing")
        return claims

    # ------------------------------------------------------------------------------------------------- over the wire

    def _exchange(self, document: Document, code: str, errand: Errand) -> str:
        """The token that a code is answered with."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": errand.back,
            "code_verifier": errand.verifier,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        ours, secret = self._settings.oidc_client_id, self._settings.oidc_client_secret
        if secret and not document.by_post:
            pair = f"{quote(ours, safe='')}:{quote(secret, safe='')}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        else:
            form |= {"client_id": ours} | ({"client_secret": secret} if secret else {})
        outcome = self._send("POST", document.token, headers, urlencode(form).encode())
        said = _json(outcome)
        if outcome.status == 400:
            raise Astray("the provider refuses the code")
        if not outcome.taken or not isinstance(said.get("id_token"), str):
            raise Unavailable(f"the provider answers a code with status {outcome.status} and no token")
        return str(said["id_token"])

    def _asked(self, url: str) -> dict[str, Any]:
        outcome = self._send("GET", url, {}, b"")
        said = _json(outcome)
        if not outcome.taken or not said:
            raise Unavailable(f"the provider's {url} is answered with status {outcome.status}, and no JSON")
        return said

    def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Outcome:
        target = self._target(url)
        try:
            numbers = self._post.numbers(target)
        except Closed as closed:
            raise Unavailable(f"the provider's {url} is not reached: {closed}") from None
        said = {"Accept": "application/json", "User-Agent": "keywright"} | dict(headers)
        if body:
            said["Content-Length"] = str(len(body))
        outcome = self._post.send(target, numbers, said, body, method=method)
        if outcome.status is None:
            raise Unavailable(f"the provider's {url} does not answer: {outcome.error}")
        return outcome

    def _target(self, url: str) -> addresses.Target:
        try:
            return addresses.read(url, self._settings.oidc_networks)
        except Invalid as wrong:
            reason = wrong.reason.partition(" (")[0]
            raise Unavailable(f"the provider's {url[:200]} {reason} (oidc_networks opens your own)") from None


class _Registry(JWSRegistry):
    """The algorithms of the list, and no other."""

    def get_alg(self, name: str) -> Any:
        if name not in ALGORITHMS:
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]


_REGISTRY: Final = _Registry(strict_check_header=False)


def challenge(verifier: str) -> str:
    """What is sent ahead of a verifier (PKCE, S256)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def check(claims: Mapping[str, Any], issuer: str, ours: str, errand: Errand, now: int) -> None:
    """Hold what a token says to who was asked, by whom, for what, and when. Raises ``Astray``."""
    aud, seconds = claims.get("aud"), now // SECOND
    meant = aud if isinstance(aud, list) else [aud]
    if claims.get("iss") != issuer:
        raise Astray("the token is another issuer's")
    if ours not in meant or (len(meant) > 1 and "azp" not in claims):
        raise Astray("the token is for another client")
    if claims.get("azp", ours) != ours:
        raise Astray("the token was given to another client")
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if seconds >= expires + LEEWAY:
        raise Astray("the token has expired")
    since = _seconds(claims, "nbf") if "nbf" in claims else issued
    if not -LEEWAY <= seconds - issued <= OLDEST + LEEWAY or seconds < since - LEEWAY:
        raise Astray("the token is not of now")
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), errand.nonce.encode()):
        raise Astray("the token is of another sign-in")
    if not isinstance(claims.get("sub"), str) or not 0 < len(claims["sub"]) <= 255:
        raise Astray("the token means nobody")
    if errand.session and _seconds(claims, "auth_time") < errand.began_at // SECOND - LEEWAY:
        raise Astray("nobody has proven themselves to the provider since they were asked to")


def read(claims: Mapping[str, Any], settings: Settings) -> Vouched:
    """What a checked token says of somebody, as far as it is of use. Raises ``Astray`` where it keeps groups back."""
    named = settings.oidc_groups_claim
    kept = claims.get("_claim_names")
    if isinstance(kept, dict) and named in kept:
        raise Astray("somebody is in more groups than the provider puts into a token")
    said = claims.get(named)
    groups = [said] if isinstance(said, str) else _listed(claims, named)
    wanted = {rule.group for rule in settings.oidc_roles}
    proven = claims.get("auth_time")
    return Vouched(
        issuer=settings.oidc_issuer,
        subject=claims["sub"],
        email=_verified(claims),
        name=claims["name"][:_LONGEST_NAME] if isinstance(claims.get("name"), str) else "",
        groups=tuple(sorted(wanted.intersection(groups))),
        proven_at=proven * SECOND if isinstance(proven, int) else None,
        factor=_has_factor(claims, settings.oidc_second_factor),
    )


def _verified(claims: Mapping[str, Any]) -> str | None:
    """The address, where the provider has verified it; Entra says so in a claim of its own."""
    entra = claims.get("xms_edov") in (True, 1, "1", "true")
    if claims.get("email_verified", entra) is not True:
        return None
    try:
        return fields.email(claims.get("email"))
    except Invalid:
        return None


def _has_factor(claims: Mapping[str, Any], counts: str) -> bool:
    if counts != "amr":
        return counts == "theirs"
    seen = set(_listed(claims, "amr"))
    return "mfa" in seen or bool(seen & _KNOWN and seen & _HAD) or claims.get("acr") in _STRONG


def _listed(said: Mapping[str, Any], name: str) -> list[str]:
    found = said.get(name)
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    found = claims.get(name)
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found < 1 << 40:
        raise Astray(f"the token does not say {name}")
    return int(found)


def _key(said: Any) -> Key | None:
    """A public key of a set, if it is one that tokens may be signed by."""
    if (
        not isinstance(said, dict)
        or said.get("kty") not in ALGORITHMS.values()
        or said.get("use", "sig") != "sig"
    ):
        return None
    if said["kty"] == "RSA" and len(str(said.get("n", ""))) < _LEAST_RSA * 4 // 3:
        return None
    try:
        return JWKRegistry.import_key({name: value for name, value in said.items() if name != "d"})
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _named(keys: Sequence[Key], kid: object, kind: str) -> Key | None:
    """The key of a name; where a token names none, the only one of its kind."""
    ours = [key for key in keys if key.key_type == kind]
    if kid is None:
        return ours[0] if len(ours) == 1 else None
    return next((key for key in ours if key.kid == kid), None)


def _json(outcome: Outcome) -> dict[str, Any]:
    try:
        said = json.loads(outcome.body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _within(since: float | None, span: float, now: float) -> bool:
    return since is not None and now - since < span


__all__ = ["ALGORITHMS", "Astray", "Provider", "challenge", "check", "read"]
