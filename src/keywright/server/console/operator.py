"""The operator's pages of the installation: keyspaces as applied, management keys, health."""

from typing import Final

from starlette.responses import Response

from keywright.errors import CallerError
from keywright.profiles import MANAGEMENT_SCOPES
from keywright.server.console import words
from keywright.server.console.visits import Page, Visit, field
from keywright.store.schema import HEADS


def keyspaces(visit: Visit) -> Response:
    """The keyspaces, with their plans and gates, as their TOML was applied."""
    return visit.page("keyspaces.html", applied=visit.opened.keyspaces.list())


def management_keys(visit: Visit) -> Response:
    """The keys that open the management API: of an account, or of the installation."""
    return _management_page(visit, "", 200)


def _management_page(visit: Visit, problem: str, status: int) -> Response:
    page = visit.opened.management_keys.list(reach=visit.reach, cursor=field(visit.query, "cursor"))
    held = {name: title for name, (title, _) in MANAGEMENT_SCOPES.items() if name in visit.caller.scopes}
    return visit.page(
        "management_keys.html",
        status=status,
        keys=page.items,
        next_cursor=page.next_cursor,
        scopes=held,
        problem=problem,
        given=visit.form,
        chosen=visit.every("scopes"),
        status_of=lambda key: words.status(key, visit.opened.clock(), {}, {}),
    )


def create_management_key(visit: Visit) -> Response:
    """Make one, and show it: this once."""
    try:
        issued = visit.opened.management_keys.create(
            name=visit.form.get("name", ""),
            scopes=visit.every("scopes"),
            account=visit.account,
            actor=visit.caller.actor,
            reach=visit.reach,
            by=visit.caller.holder,
        )
    except CallerError as wrong:
        return _management_page(visit, str(wrong), wrong.status)
    return visit.page("management_key.html", key=issued.key, token=issued.credential.token)


def stop_management_key(visit: Visit) -> Response:
    """Invalidate one."""
    visit.opened.management_keys.invalidate(
        visit.request.path_params["key_id"], actor=visit.caller.actor, reach=visit.reach
    )
    return visit.go(visit.at("management-keys"), said="invalidated")


def health(visit: Visit) -> Response:
    """How the installation is."""
    opened = visit.opened
    broken = opened.trail.verify()
    head = opened.trail.head()
    facts = {
        "Database": "SQLite" if opened.database.is_sqlite else "PostgreSQL",
        "Schema": ", ".join(f"{name} {version}" for name, version in HEADS.items()),
        "Keys in memory": str(len(opened.cache)),
        "Audit trail": f"{head.seq} entries, whole"
        if broken is None
        else f"broken at entry {broken.seq}: it {broken.how}",
        "Newest entry": f"{head.seq}:{head.mac[:16]}…",
        "Address": visit.desk.settings.base_url,
    }
    return visit.page("health.html", facts=facts, well=broken is None)


PAGES: Final = (
    Page("GET", "/console/operator/keyspaces", keyspaces, "keyspaces:read", operator=True),
    Page("GET", "/console/operator/management-keys", management_keys, "management-keys:read", operator=True),
    Page(
        "POST",
        "/console/operator/management-keys",
        create_management_key,
        "management-keys:write",
        operator=True,
        fresh=True,
    ),
    Page(
        "POST",
        "/console/operator/management-keys/{key_id}",
        stop_management_key,
        "management-keys:write",
        operator=True,
    ),
    Page("GET", "/console/@{account}/management-keys", management_keys, "management-keys:read"),
    Page(
        "POST",
        "/console/@{account}/management-keys",
        create_management_key,
        "management-keys:write",
        fresh=True,
    ),
    Page(
        "POST", "/console/@{account}/management-keys/{key_id}", stop_management_key, "management-keys:write"
    ),
    Page("GET", "/console/operator/health", health, "audit:read", operator=True),
)
