"""How far a change has travelled: whoever makes one waits here until every worker knows it, or cannot but.

On SQLite nobody waits: workers see the commit itself.
"""

import time
from typing import Final

from keywright import leases
from keywright.clock import boottime
from keywright.errors import Unavailable
from keywright.leases import Standing, Worker
from keywright.model import Propagation
from keywright.store import workers
from keywright.store.db import Database

#: How long one waits between looks at who has confirmed, in seconds: at first, and at most.
FIRST_LOOK: Final = 0.001
LAST_LOOK: Final = 0.02
#: Where nobody can be asked who has confirmed, somebody may be serving for as long as anybody may.
_UNKNOWN: Final = (Worker(-1, leases.LONGEST_STALE),)


def follow(database: Database, seq: int, now: int, travelled: Propagation) -> None:
    """Wait until no worker can answer from the state before ``seq``, a second or so at most; write down how it stands.

    To be called after the commit. ``now`` is the wall clock's, for the instant that is told.
    """
    if database.is_sqlite:
        return
    committed = boottime()
    standing = _watched(database, seq, committed)
    travelled.exact = standing.exact
    travelled.workers, travelled.confirmed = standing.workers, standing.confirmed
    travelled.complete_by = now + (boottime() if standing.exact else standing.until) - committed


def _watched(database: Database, seq: int, committed: int) -> Standing:
    try:
        with database.watch() as connection:
            pause = FIRST_LOOK
            while True:
                found = workers.every(connection)
                standing = leases.standing(found, seq, committed, boottime())
                if standing.settled:
                    return standing
                time.sleep(pause)
                pause = min(2 * pause, LAST_LOOK)
    except Unavailable:
        # It is committed, and must not be called a failure: say the worst that may be.
        while not (standing := leases.standing(_UNKNOWN, seq, committed, boottime())).settled:
            time.sleep(LAST_LOOK)
        return standing._replace(workers=0)
