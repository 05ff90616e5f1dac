"""Keywright makes, checks and looks after the API keys of a product.

from keywright import Keywright

kw = Keywright("sqlite:///keys.db", keyspace="acme", environment="production")
verdict = kw.verify(headers, scopes=["contacts:read"], method="GET")
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from keywright.answers import Answer
    from keywright.client import Client
    from keywright.errors import (
        CallerError,
        CannotStart,
        Conflict,
        Denied,
        Exceeds,
        Invalid,
        KeywrightError,
        NotFound,
        ProfileError,
        SchemaTrouble,
        SecretTrouble,
        Unavailable,
    )
    from keywright.installation import Keywright
    from keywright.model import Account, Actor, Changed, Issued, Key, Limit, Verdict

__all__ = [
    "Account",
    "Actor",
    "Answer",
    "CallerError",
    "CannotStart",
    "Changed",
    "Client",
    "Conflict",
    "Denied",
    "Exceeds",
    "Invalid",
    "Issued",
    "Key",
    "Keywright",
    "KeywrightError",
    "Limit",
    "NotFound",
    "ProfileError",
    "SchemaTrouble",
    "SecretTrouble",
    "Unavailable",
    "Verdict",
    "__version__",
]

_ROOMS = {
    "answers": ("Answer",),
    "client": ("Client",),
    "installation": ("Keywright",),
    "model": ("Account", "Actor", "Changed", "Issued", "Key", "Limit", "Verdict"),
}


def __getattr__(name: str) -> Any:
    # The command's --help must not pay for a database driver: a name is imported when it is first asked for.
    from importlib import import_module  # noqa: PLC0415

    if name in __all__:
        room = next((room for room, names in _ROOMS.items() if name in names), "errors")
        return getattr(import_module(f"keywright.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
