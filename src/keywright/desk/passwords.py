"""Passwords of people: argon2id, few at a time, and none that is quickly guessed.

The slow hash is for what people can remember; an API key has nothing to guess and gets an HMAC (``credential``).
Parameters are OWASP's minimum for argon2id, 19 MiB and two passes, and are stored with each hash.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from keywright.errors import CannotStart, Invalid, Unavailable

if TYPE_CHECKING:
    from argon2 import PasswordHasher

#: NIST SP 800-63B-4, where the password is the only factor.
SHORTEST: Final = 15  # characters
LONGEST: Final = 256  # bytes
#: How many are computed at once, and how many wait: a page anybody can post to must not use up memory or processors.
AT_ONCE: Final = 2
WAITING: Final = 16
#: The fewest characters, and the least of zxcvbn's five scores: 3 needs more than 10^8 guesses, 2 more than 10^6.
_ALONE: Final = (SHORTEST, 3)
_BESIDE_FACTOR: Final = (8, 2)
_MEASURED: Final = 72  # characters; beyond that zxcvbn takes long and learns little
_MEMORY, _PASSES, _LANES = 19_456, 2, 1  # KiB


def check(password: str, about: Sequence[str] = (), *, beside_factor: bool = False) -> str:
    """Refuse what is too short, too long, or quickly guessed by somebody who knows ``about``. Raises ``Invalid``.

    Beside a second factor less is enough: guesses are bounded by that, too.
    """
    shortest, least = _BESIDE_FACTOR if beside_factor else _ALONE
    if len(password) < shortest:
        raise Invalid(f"has {len(password)} characters; {shortest} or more are needed", path="password")
    if len(password.encode("utf-8", "replace")) > LONGEST:
        raise Invalid(f"is longer than {LONGEST} bytes", path="password")
    zxcvbn = _imported("zxcvbn")
    if zxcvbn.zxcvbn(password[:_MEASURED], user_inputs=list(about))["score"] < least:
        raise Invalid(
            "is quickly guessed; four words that do not belong together are better", path="password"
        )
    return password


class Passwords:
    """Computes hashes, a few at a time. Raises ``Unavailable`` where too many wait already."""

    def __init__(self) -> None:
        self._computing = threading.BoundedSemaphore(AT_ONCE)
        self._admitted = threading.BoundedSemaphore(AT_ONCE + WAITING)
        self._dummy = ""

    def hash(self, password: str) -> str:
        """What is stored of a password."""
        with self._turn():
            return str(_hasher().hash(password))

    def proves(self, stored: str | None, password: str) -> bool:
        """Whether a password is the one that was stored; with nothing stored it takes as long to say no."""
        argon2 = _imported("argon2")
        with self._turn():
            hasher = _hasher()
            if not self._dummy:
                self._dummy = hasher.hash("nobody's")
            try:
                hasher.verify(stored or self._dummy, password)
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
                return False
        return stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether a hash was made with smaller parameters than those in force."""
        return bool(_hasher().check_needs_rehash(stored))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._admitted.acquire(blocking=False):
            raise Unavailable("too many people sign in at once")
        try:
            with self._computing:
                yield
        finally:
            self._admitted.release()


def _hasher() -> "PasswordHasher":
    argon2 = _imported("argon2")
    hasher: PasswordHasher = argon2.PasswordHasher(_PASSES, _MEMORY, _LANES)
    return hasher


def _imported(name: str) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError:
        raise CannotStart(f"people need {name}: pip install 'keywright[server]'") from None
