"""The audit trail, as it is read and proven."""

from collections.abc import Sequence
from typing import Any

from keywright.desk import Desk
from keywright.store import audit
from keywright.store.audit import Broken, Head


class Trail(Desk):
    """The audit trail of an installation."""

    def verify(self, kept: Head | None = None) -> Broken | None:
        """Recompute the whole chain; ``None`` where it holds. ``kept`` is a head that was kept outside."""
        with self.database.read() as connection:
            return audit.verify(connection, self.keyring, kept)

    def head(self) -> Head:
        """The newest entry's number and MAC: what to keep outside."""
        with self.database.read() as connection:
            return audit.head(connection)

    def list(self, *, before: int | None = None, limit: int = 100) -> Sequence[dict[str, Any]]:
        """The newest entries, newest first."""
        with self.database.read() as connection:
            return tuple(audit.entries(connection, before=before, limit=limit))
