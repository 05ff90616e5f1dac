"""What can go wrong, as a tree, and the one table from codes to HTTP.

    KeywrightError                 has a ``code``; its first sentence is the message
    ├── CallerError                the caller asked for something that cannot be
    │   ├── Invalid                a field, a limit, a scope, a time: ``invalid_request``
    │   │   └── ProfileError       a keyspace's TOML, with the path of the key at fault
    │   ├── NotFound               no such thing, or not yours: ``not_found``
    │   ├── Conflict               the thing is not in a state for this: ``conflict``
    │   ├── Exceeds                a grant larger than its grantor: ``exceeds_grantor``
    │   ├── Forbidden              a role that does not allow it: ``insufficient_role``
    │   ├── SignInFailed           an address, a password and a code that do not belong together: ``sign_in_failed``
    │   ├── SecondFactorNeeded  the password is right, and a code is wanted as well: ``second_factor_needed``
    │   ├── Throttled              too many of these before, or failures: ``rate_limited``
    │   └── Denied                 a server refuses the key that a call came with: under the code that it says
    ├── Unavailable                the store does not answer: ``unavailable``
    └── CannotStart                this installation cannot be opened: ``cannot_start``
        ├── SecretTrouble          the installation's secret is missing, unreadable or another's
        └── SchemaTrouble          the database was made by a newer Keywright, or is not one of ours

A refused *credential* is none of these: it is a value, ``model.Verdict``.
"""

from typing import Final, NamedTuple


class Meaning(NamedTuple):
    """What a code means over HTTP: its status and the title that never varies."""

    status: int
    title: str


#: Every code that Keywright says, in any place, and what it means over HTTP. The only table of statuses.
CODES: Final[dict[str, Meaning]] = {
    "ok": Meaning(200, "The request may proceed"),
    # what a credential can be told before it is proven
    "missing": Meaning(401, "No API key was presented"),
    "ambiguous": Meaning(401, "More than one reading of the presented credentials is possible"),
    "invalid": Meaning(401, "The API key is not valid"),
    # what it can be told after
    "invalidated": Meaning(401, "The API key was invalidated"),
    "disabled": Meaning(401, "The API key is disabled"),
    "expired": Meaning(401, "The API key has expired"),
    "rotated": Meaning(401, "This secret was replaced by a newer one"),
    "wrong_environment": Meaning(401, "The API key belongs to another environment"),
    "account_suspended": Meaning(403, "The account is not active"),
    "ip_not_allowed": Meaning(403, "The API key may not be used from this address"),
    "insufficient_scope": Meaning(403, "The API key does not allow this"),
    "rate_limited": Meaning(429, "Too many requests"),
    "quota_exhausted": Meaning(429, "The quota is used up"),
    "unavailable": Meaning(503, "The service cannot answer right now"),
    # what a gateway is told
    "gateway_misconfigured": Meaning(400, "The gateway did not say what was asked of it"),
    "ambiguous_path": Meaning(400, "The path can be read in more than one way"),
    # what a caller of the management API is told
    "bad_json": Meaning(400, "The body is not acceptable JSON"),
    "bad_signature": Meaning(400, "The body is not signed as it must be"),
    "invalid_request": Meaning(422, "The request cannot be carried out as written"),
    "not_found": Meaning(404, "There is no such thing here"),
    "method_not_allowed": Meaning(405, "The method is not offered here"),
    "conflict": Meaning(409, "The thing is not in a state for this"),
    "too_large": Meaning(413, "The body is too large"),
    "unsupported_media_type": Meaning(415, "The body must be application/json"),
    "too_many_headers": Meaning(431, "The request has too many header fields"),
    "exceeds_grantor": Meaning(403, "A grant cannot exceed its grantor"),
    # what a person is told
    "sign_in_failed": Meaning(401, "Address, password and code do not belong together"),
    "second_factor_needed": Meaning(401, "A code of your second factor is needed as well"),
    "second_factor_missing": Meaning(403, "Set up a second factor before this"),
    "signed_out": Meaning(401, "Nobody is signed in"),
    "insufficient_role": Meaning(403, "Your role does not allow this"),
    "password_needed": Meaning(403, "Give your password again before this"),
    "cross_site": Meaning(403, "The request did not come from one of our own pages"),
    "https_required": Meaning(403, "This address is served over HTTPS only"),
    "cannot_start": Meaning(503, "The installation cannot be opened"),
    "internal": Meaning(500, "Something of ours is broken"),
}


class KeywrightError(Exception):
    """Something that Keywright will not or cannot do."""

    code: str = "internal"

    @property
    def status(self) -> int:
        """The HTTP status of this error's code."""
        return CODES[self.code].status


class CallerError(KeywrightError):
    """The caller asked for something that cannot be."""

    code = "invalid_request"


class Invalid(CallerError):
    """A value is not acceptable; ``path`` names the field at fault, where there is one."""

    def __init__(self, message: str, *, path: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.reason = message


class ProfileError(Invalid):
    """A keyspace's definition is not acceptable; ``path`` is the TOML key at fault."""


class NotFound(CallerError):
    """There is no such thing, or it is not the caller's: the two are never told apart."""

    code = "not_found"


class Conflict(CallerError):
    """The thing exists, but is not in a state in which this can be done."""

    code = "conflict"


class Exceeds(CallerError):
    """Somebody tried to grant more than they hold."""

    code = "exceeds_grantor"


class Forbidden(CallerError):
    """The thing is the caller's to see, but their role does not allow what they ask."""

    code = "insufficient_role"


class SignInFailed(CallerError):
    """Address, password and, where there is one, the code do not belong together. Why is never said."""

    code = "sign_in_failed"

    def __init__(self) -> None:
        super().__init__("Address, password and code do not belong together.")


class SecondFactorNeeded(CallerError):
    """The password is right; the code of an authenticator, or a recovery code, must come with it."""

    code = "second_factor_needed"

    def __init__(self) -> None:
        super().__init__("Give the code that your authenticator shows, or a recovery code, in the same call.")


class Forged(CallerError):
    """A body is not signed by whom it must be signed by. Nothing of it was read."""

    code = "bad_signature"

    def __init__(self) -> None:
        super().__init__("The body is not signed by a current key of whoever reports here.")


class Throttled(CallerError):
    """There were too many before this, failures most often; it was not looked at. ``retry_after`` is in seconds."""

    code = "rate_limited"

    def __init__(self, retry_after: int, message: str = "") -> None:
        super().__init__(message or f"Too many attempts have failed; wait {retry_after} seconds.")
        self.retry_after = retry_after


class Denied(CallerError):
    """A server refuses the management key that a call came with, or what that key may do; ``code`` is the server's."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class Unavailable(KeywrightError):
    """The store does not answer; nothing was changed, and trying again is right."""

    code = "unavailable"


class CannotStart(KeywrightError):
    """This installation cannot be opened; the message is one line that says what to do."""

    code = "cannot_start"


class SecretTrouble(CannotStart):
    """The installation's secret is missing, unreadable, malformed, or belongs to another database."""


class SchemaTrouble(CannotStart):
    """The database was written by a newer Keywright, or is not a Keywright database."""
