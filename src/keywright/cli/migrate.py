"""``keywright migrate``: bring the database to this version's schema."""

from pathlib import Path

import click

from keywright.cli.opening import as_json, print_json, print_line, settings, where
from keywright.errors import CannotStart


@click.command("migrate")
@click.option(
    "--check", is_flag=True, help="Change nothing; the exit code is 1 where there is something to do."
)
@as_json
@where
def command(database: str | None, config: Path | None, *, check: bool, as_json: bool) -> int:
    """Bring the database to this version's schema, making a new one where there is none.

    Two at once wait for each other. A database of a newer version is refused.
    """
    from keywright.installation import open_installation
    from keywright.store import migrate
    from keywright.store.db import Database
    from keywright.store.schema import HEADS

    found = settings(database, config)
    store = Database(found.database)
    try:
        migrate.check(store)
        before = migrate.versions(store)
    finally:
        store.close()
    behind = sorted(which for which, version in before.items() if version != HEADS[which])
    if not check:
        if store.is_sqlite and not store.path.parent.is_dir():
            raise CannotStart(f"the directory {store.path.parent} does not exist")
        open_installation(found.database, secret=found.secret or None, may_migrate=True).close()
    if as_json:
        print_json(
            {
                "before": before,
                "schema": dict(HEADS),
                "behind": behind,
                "migrated": not check and bool(behind),
            }
        )
        return 1 if check and behind else 0
    for which, version in HEADS.items():
        was = before[which] or "none"
        said = "up to date" if which not in behind else f"is {was}" if check else f"migrated, was {was}"
        print_line(f"{which:<6} {version}  {said}")
    return 1 if check and behind else 0
