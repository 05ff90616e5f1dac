"""The page of alerts: of an account, or of the whole installation; each is dealt with in one click."""

from typing import Any, Final

from starlette.responses import Response

from keywright.errors import Conflict, Forbidden, Invalid
from keywright.misuse import RULES, advice
from keywright.model import Alert
from keywright.server.console import words
from keywright.server.console.visits import Page, Typed, Visit, field

_FILTERS: Final = ("state", "severity", "rule", "key", "cursor")


def listing(visit: Visit) -> Response:
    """What was found, newest first, and what to do about it."""
    narrow: dict[str, Any] = {name: value for name in _FILTERS if (value := field(visit.query, name))}
    problem = ""
    try:
        page = visit.opened.alerts.list(account=visit.account, limit=50, reach=visit.reach, **narrow)
    except Invalid as wrong:
        problem, page = (
            str(wrong),
            visit.opened.alerts.list(account=visit.account, limit=50, reach=visit.reach),
        )
    return visit.page(
        "alerts.html",
        alerts=page.items,
        next_cursor=page.next_cursor,
        narrow=Typed(narrow),
        problem=problem,
        rules=RULES,
        advice_of=advice,
        acts={one.id: _acts(visit, one) for one in page.items},
    )


def _acts(visit: Visit, alert: Alert) -> list[str]:
    """What one may do about it here."""
    found = [] if alert.state == "resolved" or not visit.may("alerts:write") else ["resolve"]
    if alert.state == "open" and found:
        found.insert(0, "acknowledge")
    space = next((one for one in visit.spaces if one.name == alert.keyspace), None)
    may_stop = alert.key_id and space is not None and visit.may("keys:write", space)
    return [*found, "disable", "invalidate"] if may_stop and found else found


def act(visit: Visit) -> Response:
    """Acknowledge or resolve it, or stop the key that it is about, which acknowledges it as well."""
    alert_id, doing = visit.request.path_params["alert_id"], visit.form.get("act", "")
    alert = visit.opened.alerts.get(alert_id, reach=visit.reach)
    verbs = {"acknowledge": visit.opened.alerts.acknowledge, "resolve": visit.opened.alerts.resolve}
    if doing in ("disable", "invalidate"):
        _stop(visit, alert, doing)
        doing = f"alert_{doing}"
    elif doing in verbs:
        verbs[doing](alert_id, actor=visit.caller.actor, reach=visit.reach)
    else:
        raise Invalid(words.NOT_FOUND)
    return visit.go(visit.at("alerts"), said=doing)


def _stop(visit: Visit, alert: Alert, doing: str) -> None:
    space = next((one for one in visit.spaces if one.name == alert.keyspace), None)
    if not alert.key_id or space is None:
        raise Conflict("the alert is about no key that could be stopped here")
    if not visit.may("keys:write", space):
        raise Forbidden(words.may_not("keys:write", visit.admins))
    reach = visit.caller.within("keys:write", list(visit.spaces)).reach
    keys = visit.opened.keys
    if doing == "disable":
        keys.disable(alert.key_id, actor=visit.caller.actor, reach=reach)
    else:
        reason = f"misuse: {alert.rule}, {alert.id}"
        keys.invalidate(alert.key_id, reason=reason, actor=visit.caller.actor, reach=reach)
    if alert.state == "open":
        visit.opened.alerts.acknowledge(alert.id, actor=visit.caller.actor, reach=visit.reach)


PAGES: Final = (
    Page("GET", "/console/@{account}/alerts", listing, "alerts:read"),
    Page("POST", "/console/@{account}/alerts/{alert_id}", act, "alerts:write"),
    Page("GET", "/console/operator/alerts", listing, "alerts:read", operator=True),
    Page("POST", "/console/operator/alerts/{alert_id}", act, "alerts:write", operator=True),
)
