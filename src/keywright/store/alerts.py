"""Alerts: signs of misuse, and what has become of them."""

from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from keywright.model import Alert
from keywright.store.schema import alerts

#: How many are kept; of more, the oldest that are resolved make room, then the oldest.
KEPT: Final = 20_000

_FIELDS: Final = Alert.__struct_fields__


class Narrow(msgspec.Struct, frozen=True, kw_only=True):
    """What a list is narrowed to; ``closed`` are keyspaces that are left out."""

    account: str | None = None
    keyspace: str | None = None
    environment: str | None = None
    key_id: str | None = None
    rule: str | None = None
    severity: str | None = None
    state: str | None = None
    closed: tuple[str, ...] = ()


class Subject(NamedTuple):
    """What an alert is about: of what has the same subject there is one that is not resolved."""

    rule: str
    keyspace: str
    about: str


def newest(connection: Connection, of: Subject) -> Alert | None:
    """The newest of a subject."""
    mine = (alerts.c[name] == value for name, value in of._asdict().items())
    row = connection.execute(select(alerts).where(*mine).order_by(alerts.c.seq.desc()).limit(1)).first()
    return None if row is None else _alert(row)


def add(tx: Connection, alert: Alert) -> None:
    """Write a new one."""
    values = msgspec.structs.asdict(alert)
    del values["seq"]
    values["evidence"] = _json(alert.evidence)
    tx.execute(insert(alerts).values(**values))


def change(tx: Connection, alert_id: str, **values: Any) -> None:
    """Change columns of one."""
    if "evidence" in values:
        values["evidence"] = _json(values["evidence"])
    tx.execute(update(alerts).where(alerts.c.id == alert_id).values(values))


def get(connection: Connection, alert_id: str) -> Alert | None:
    """Read one."""
    row = connection.execute(select(alerts).where(alerts.c.id == alert_id)).first()
    return None if row is None else _alert(row)


def page(connection: Connection, narrow: Narrow, *, before: int | None, limit: int) -> list[Alert]:
    """The newest, newest first."""
    query = select(alerts).where(*_conditions(narrow))
    if before is not None:
        query = query.where(alerts.c.seq < before)
    return [_alert(row) for row in connection.execute(query.order_by(alerts.c.seq.desc()).limit(limit))]


def unresolved(connection: Connection, rule: str, keyspace: str) -> int:
    """How many of a rule that name no key are not resolved."""
    mine = (
        alerts.c.rule == rule,
        alerts.c.keyspace == keyspace,
        alerts.c.key_id == "",
        alerts.c.state != "resolved",
    )
    return int(connection.execute(select(func.count()).select_from(alerts).where(*mine)).scalar_one())


def standing(connection: Connection) -> dict[str, int]:
    """How many are open, by severity."""
    query = (
        select(alerts.c.severity, func.count()).where(alerts.c.state == "open").group_by(alerts.c.severity)
    )
    return {row[0]: int(row[1]) for row in connection.execute(query)}


def trim(tx: Connection) -> None:
    """Let the oldest go where there are too many."""
    over = int(tx.execute(select(func.count()).select_from(alerts)).scalar_one()) - KEPT
    for condition in (alerts.c.state == "resolved", alerts.c.seq > 0):
        if over > 0:
            oldest = select(alerts.c.seq).where(condition).order_by(alerts.c.seq).limit(over)
            over -= int(tx.execute(delete(alerts).where(alerts.c.seq.in_(oldest))).rowcount)


def _conditions(narrow: Narrow) -> list[ColumnElement[bool]]:
    given = msgspec.structs.asdict(narrow)
    closed = given.pop("closed")
    found: list[ColumnElement[bool]] = [
        alerts.c[name] == value for name, value in given.items() if value is not None
    ]
    if closed:
        found.append(alerts.c.keyspace.not_in(list(closed)))
    return found


def _alert(row: Row[Any]) -> Alert:
    values = {name: getattr(row, name) for name in _FIELDS}
    return Alert(**(values | {"evidence": msgspec.json.decode(row.evidence)}))


def _json(evidence: Any) -> str:
    return msgspec.json.encode(evidence).decode()
