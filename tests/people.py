"""People for tests: members of accounts and operators, who have chosen a password, visitors, and their open sessions."""

from secrets import token_hex
from typing import Any

from keywright import Keywright
from keywright.model import Person, PortalLink, Session
from keywright.server.callers import csrf_token
from keywright.store import identities

PASSWORD = "four words beside gravel"


def begin(
    kw: Keywright, role: str, account: str = "globex", email: str = "", **more: Any
) -> tuple[str, Session]:
    """A person with a role, or an operator, signed in: what their cookie holds, and the session."""
    people, sessions = kw.installation.people, kw.installation.sessions
    email = email or f"{role}@{account}.example"
    if role == "operator":
        invited = people.appoint(email)
    else:
        invited = people.invite(email, account=account, role=role, **more)
    begun = sessions.follow(invited.token, PASSWORD)
    return begun.token, begun.session


def member(kw: Keywright, role: str, account: str = "globex") -> Person:
    """A member of an account who has been invited, and has not come yet: no password is computed for them."""
    email = f"invited-{token_hex(4)}@{account}.example"
    invited = kw.installation.people.invite(email, account=account, role=role)
    assert invited.person is not None
    return invited.person


def visit(kw: Keywright, account: str = "globex", **more: Any) -> tuple[str, Session]:
    """A visitor of the portal, come by a link of the host's: what their cookie holds, and the session."""
    link = kw.portal.open(**{"account": account, "subject": f"ana@{account}"} | more)
    begun = kw.portal.enter(code_of(link))
    return begun.token, begun.session


def code_of(link: PortalLink) -> str:
    """What a link of the portal holds."""
    assert link.url is not None
    return link.url.rpartition("/portal/")[2]


def linked(kw: Keywright, person_id: str) -> None:
    """Have somebody come by an identity provider, as if they had signed in by it."""
    with kw.installation.database.write() as tx:
        identities.add(tx, "https://id.globex.example", person_id, person_id, kw.installation.clock())


def as_person(kw: Keywright, begun: tuple[str, Session], account: str | None = None) -> dict[str, str]:
    """The headers with which one of our pages calls for somebody."""
    token, session = begun
    headers = {
        "Cookie": f"keywright-session={token}",
        "X-CSRF-Token": csrf_token(kw.installation, session),
        "Sec-Fetch-Site": "same-origin",
    }
    return headers if account is None else headers | {"Keywright-Account": account}
