"""Second factors: a code of an authenticator (TOTP, RFC 6238), or one of ten recovery codes. Each works once.

The authenticator's secret has to be read to check a code, so it is kept sealed: AES-256-GCM under a key that derives from
the installation's secret, bound to its person. A stolen database holds nothing that makes a code.
"""

import base64
import hashlib
import hmac
import secrets
from importlib import import_module
from typing import Any, Final

import msgspec

from keywright.desk import Change, Desk, tokens
from keywright.desk.tokens import Begun
from keywright.errors import CannotStart, Conflict, SecondFactorNeeded, SignInFailed, Throttled, Unavailable
from keywright.model import Actor, Person, Session
from keywright.store import factors, people, sessions
from keywright.store.factors import Factor
from keywright.times import SECOND

#: The seconds for which an authenticator shows a code, and how many such steps its clock may be off.
STEP: Final = 30
OFF: Final = 1
#: How long somebody may take from the secret to the first code.
OFFERED_FOR: Final = 15 * 60  # seconds
TRIES: Final = 5
PER: Final = 15 * 60  # seconds
RECOVERY_CODES: Final = 10
_CODE_BYTES: Final = 15  # 120 bits: too many to guess, so that a plain hash is enough
_NONCE: Final = 12  # bytes, as AES-GCM wants them


class Offered(msgspec.Struct, frozen=True):
    """A secret for an authenticator, told this once: as an address that it reads, and as text to type."""

    uri: str
    secret: str
    ends_at: int

    def __repr__(self) -> str:
        return f"Offered(ends_at={self.ends_at})"


class Confirmed(Begun, frozen=True):
    """A session under a new cookie, and the recovery codes, told this once."""

    codes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Confirmed(session={self.session.id!r})"


class Standing(msgspec.Struct, frozen=True):
    """How it is with somebody's second factor: since when there is one, and how many recovery codes are left."""

    since: int | None
    codes_left: int


class Factors(Desk):
    """The second factors of people. The password was proven before any of these is asked."""

    def standing(self, person: Person) -> Standing:
        """How it is with a person's."""
        with self.database.read() as connection:
            return Standing(person.factor_since, factors.codes_left(connection, person.id))

    def begin(self, session: Session, *, actor: Actor) -> Offered:
        """Draw a secret for an authenticator. It counts once a code of it was given; until then all is as it was."""
        pyotp = _imported("pyotp")
        secret = pyotp.random_base32()
        with self.change() as change:
            sealed = self._seal(session.person.id, secret)
            factors.offer(change.tx, session.person.id, sealed, change.now)
            change.tell(actor, "person.factor_begin", ("person", session.person.id))
        uri = pyotp.TOTP(secret).provisioning_uri(name=session.person.email, issuer_name="Keywright")
        return Offered(uri, secret, change.now + OFFERED_FOR * SECOND)

    def confirm(self, session: Session, code: str, *, actor: Actor) -> Confirmed:
        """Put the secret that was drawn last to use, proven by a code of it. Every other session of the person ends.

        Raises ``Conflict`` where none is on offer, ``SignInFailed`` or ``Throttled``.
        """
        person = session.person
        with self.database.read() as connection:
            found = factors.get(connection, person.id)
        now = self.clock()
        if found is None or found.offered is None or now - (found.offered_at or 0) >= OFFERED_FOR * SECOND:
            raise Conflict("nothing waits to be confirmed; begin again")
        self._count(person.id, now)
        step = _step(self._open(person.id, found.offered), code, now)
        if step is None:
            raise SignInFailed
        with self.change() as change:
            if not factors.begin(change.tx, person.id, found.offered, step, change.now):
                raise Conflict("another secret was drawn meanwhile; begin again")
            people.change(change.tx, person.id, updated_at=change.now)
            codes = self._draw_codes(change, person.id)
            begun = self._renew(change, session)
            change.tell(actor, "person.factor", ("person", person.id))
        self._pardon(person.id)
        return Confirmed(begun.token, begun.session, codes)

    def renew_codes(self, session: Session, *, actor: Actor) -> tuple[str, ...]:
        """Ten new recovery codes; none of the old ones works any more. Raises ``Conflict`` where there is no factor."""
        with self.change() as change:
            self._needed(change, session)
            codes = self._draw_codes(change, session.person.id)
            change.tell(actor, "person.factor_codes", ("person", session.person.id))
            return codes

    def remove(self, session: Session, *, mandatory: bool, actor: Actor) -> Begun:
        """Take one's own second factor away. Every other session of the person ends.

        Raises ``Conflict`` where there is none, where the installation wants one of this person, and where the password is
        shorter than one that stands alone.
        """
        with self.change() as change:
            self._needed(change, session)
            if mandatory:
                raise Conflict("your role needs a second factor here; set another one up in its place")
            if people.has_short_password(change.tx, session.person.id):
                raise Conflict("your password is too short to stand alone; take one of 15 characters first")
            factors.remove(change.tx, session.person.id)
            people.change(change.tx, session.person.id, updated_at=change.now)
            begun = self._renew(change, session)
            change.tell(actor, "person.factor_remove", ("person", session.person.id))
            return begun

    def prove(self, person_id: str, code: str) -> bool:
        """Check a code of whoever has a second factor, and use it up; whether they have one.

        Raises ``SecondFactorNeeded`` without a code, ``SignInFailed`` for a wrong or used one, ``Throttled`` after five
        tries in a quarter of an hour, and ``Unavailable`` where the secret cannot be opened.
        """
        with self.database.read() as connection:
            found = factors.get(connection, person_id)
        if found is None or found.sealed is None:
            return False
        if not code.strip():
            raise SecondFactorNeeded
        now = self.clock()
        self._count(person_id, now)
        if not self._accepts(person_id, found, code, now):
            raise SignInFailed
        self._pardon(person_id)
        return True

    # -------------------------------------------------------------------------------------------------------- inside

    def _accepts(self, person_id: str, found: Factor, code: str, now: int) -> bool:
        plain = "".join(code.split()).replace("-", "")
        if len(plain) != 6:
            return self._use_recovery_code(person_id, plain)
        assert found.sealed is not None
        secret = self._open(person_id, found.sealed)
        step = _step(secret, plain, now)
        if step is None:
            return False
        with self.database.write() as tx:
            accepted = factors.accept(tx, person_id, found.sealed, step)
            if accepted and _entry(found.sealed) != self.keyring.current:
                factors.seal_again(tx, person_id, found.sealed, self._seal(person_id, secret))
            return accepted

    def _use_recovery_code(self, person_id: str, plain: str) -> bool:
        with self.change() as change:
            if not factors.use_code(change.tx, person_id, _digest(plain)):
                return False
            left = factors.codes_left(change.tx, person_id)
            actor = Actor("person", person_id)
            change.tell(actor, "person.recovery", ("person", person_id), codes_left=left)
            return True

    def _draw_codes(self, change: Change, person_id: str) -> tuple[str, ...]:
        drawn = tuple(_draw_code() for _ in range(RECOVERY_CODES))
        factors.set_codes(change.tx, person_id, [_digest(code.replace("-", "")) for code in drawn])
        return drawn

    def _renew(self, change: Change, session: Session) -> Begun:
        """The session under another cookie, and none beside it: nobody stays in who came without the factor."""
        token = tokens.draw()
        sessions.end(change.tx, person=session.person.id, but=session.id)
        sessions.renew(change.tx, session.id, tokens.digest(token), session.proven_at)
        person = people.get(change.tx, person_id=session.person.id) or session.person
        return Begun(token, msgspec.structs.replace(session, person=person))

    def _needed(self, change: Change, session: Session) -> None:
        found = factors.get(change.tx, session.person.id)
        if found is None or found.sealed is None:
            raise Conflict("there is no second factor")

    def _count(self, person_id: str, now: int) -> None:
        """Count a try before it is looked at, so that many at once are no more than many in turn."""
        with self.database.write("usage") as tx:
            tried = sessions.attempt(tx, self._subject(person_id), now, PER * SECOND)
        if tried.failed > TRIES:
            raise Throttled(max(1, -(-(tried.since + PER * SECOND - now) // SECOND)))

    def _pardon(self, person_id: str) -> None:
        with self.database.write("usage") as tx:
            sessions.pardon(tx, self._subject(person_id))

    def _subject(self, person_id: str) -> str:
        return hmac.digest(self.keyring.cursor, f"factor {person_id}".encode(), "sha256").hex()

    def _seal(self, person_id: str, secret: str) -> bytes:
        n, nonce = self.keyring.current, secrets.token_bytes(_NONCE)
        text: bytes = self._cipher(n).encrypt(nonce, secret.encode(), person_id.encode())
        return n.to_bytes(4, "big") + nonce + text

    def _open(self, person_id: str, sealed: bytes) -> str:
        cipher, nonce = self._cipher(_entry(sealed)), sealed[4 : 4 + _NONCE]
        try:
            opened: bytes = cipher.decrypt(nonce, sealed[4 + _NONCE :], person_id.encode())
        except _imported("cryptography.exceptions").InvalidTag:
            raise Unavailable("a second factor was sealed by another hand") from None
        return opened.decode()

    def _cipher(self, n: int) -> Any:
        key = self.keyring.sealing(n)
        if key is None:
            raise Unavailable(f"entry {n} of the installation's secret is gone, and a second factor needs it")
        return _imported("cryptography.hazmat.primitives.ciphers.aead").AESGCM(key)


def _entry(sealed: bytes) -> int:
    return int.from_bytes(sealed[:4], "big")


def _step(secret: str, code: str, now: int) -> int | None:
    """The step whose code this is: the one that is now, the one before or the one after."""
    shown = _imported("pyotp").TOTP(secret)
    here, found = now // (STEP * SECOND), None
    for step in range(here - OFF, here + OFF + 1):
        if hmac.compare_digest(shown.generate_otp(step).encode(), "".join(code.split()).encode()):
            found = step
    return found


def _draw_code() -> str:
    text = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode().lower()
    return "-".join(text[place : place + 6] for place in range(0, len(text), 6))


def _digest(plain: str) -> bytes:
    return hashlib.sha256(plain.lower().encode("utf-8", "replace")).digest()


def _imported(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        needed = name.partition(".")[0]
        raise CannotStart(f"second factors need {needed}: pip install 'keywright[server]'") from None


__all__ = ["Confirmed", "Factors", "Offered", "Standing"]
