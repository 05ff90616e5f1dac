"""What one letter stands for, in a keyspace that has letters: ``G``, ``M``, ``N``, ``W`` in Partna's. Pure.

What a letter gives is worked out when a key is made, and stays: a scope that the keyspace gets later is not in it.
"""

from collections.abc import Collection

from keywright.model import Access, Keyspace, Letter
from keywright.policy import granted


def grant_of(keyspace: Keyspace, letter: Letter) -> tuple[Access, tuple[str, ...]]:
    """The access and the scopes that a letter gives."""
    if letter.gives == "all":
        return "all", ()
    if letter.gives == "reads":
        return "read_only", ()
    wanted = letter.gives == "withdrawals"
    scopes = tuple(name for name, scope in keyspace.scopes.items() if scope.withdrawal == wanted)
    return "restricted", scopes if wanted else scopes + granted(keyspace)


def letter_of(keyspace: Keyspace, access: str, scopes: Collection[str]) -> str | None:
    """The letter that gives exactly this, or ``None``."""
    for name, letter in keyspace.letters.items():
        given, listed = grant_of(keyspace, letter)
        if given == access and set(listed) == set(scopes):
            return name
    return None
