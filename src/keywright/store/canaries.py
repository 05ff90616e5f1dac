"""The proof that a database and a secret belong together."""

import hmac

from sqlalchemy import Connection, insert, select

from keywright.errors import SecretTrouble
from keywright.keyring import Keyring
from keywright.store.schema import canaries, keys


def check(tx: Connection, keyring: Keyring, now: int) -> None:
    """Compare the stored canaries with the secret's; write the one of a new entry.

    An entry is only added beside one that proves itself. Raises ``SecretTrouble`` for a secret that is another's.
    """
    stored = {row.n: row.mac for row in tx.execute(select(canaries.c.n, canaries.c.mac))}
    mine = keyring.canaries()
    for n, mac in stored.items():
        if n in mine and not hmac.compare_digest(mac, mine[n]):
            raise SecretTrouble(
                f"the installation's secret (entry {n}) is not the one that this database was made with; "
                "every key would be refused. Put the right secret back."
            )
    if stored and not set(stored) & set(mine):
        raise SecretTrouble("none of the configured secret's entries is one that this database was made with")
    if not stored and tx.execute(select(keys.c.id).limit(1)).first() is not None:
        raise SecretTrouble("the database holds keys but no canary; it was changed by hand")
    for n in sorted(set(mine) - set(stored)):
        tx.execute(insert(canaries).values(n=n, mac=mine[n], created_at=now))


def known(connection: Connection) -> set[int]:
    """The entries that the database has ever been opened with."""
    return {row.n for row in connection.execute(select(canaries.c.n))}


def missing(connection: Connection, keyring: Keyring) -> bool:
    """Whether ``check`` has something to write."""
    return not set(keyring.canaries()) <= known(connection)
