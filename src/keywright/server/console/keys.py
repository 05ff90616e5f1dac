"""The pages of an account's keys: the list, the form, the one sight of a secret, a key's own page, and what is done to it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, get_args
from urllib.parse import urlencode

import msgspec
from starlette.responses import JSONResponse, Response, StreamingResponse

from keywright import sheet, shown
from keywright.desk.listing import is_secret
from keywright.desk.once import Replay, read
from keywright.errors import CallerError, Exceeds, Invalid
from keywright.hygiene import findings
from keywright.misuse import RULES
from keywright.model import Access, Ask, Issued, Key, Keyspace
from keywright.presentations import before_the_first, example_url, presentations
from keywright.schemes import SCHEMES, from_mapping
from keywright.server.console import recent, words
from keywright.server.console.visits import Page, Typed, Visit, field
from keywright.times import DAY, SECOND, parse_instant

#: What the list can be narrowed to, and kept in the address.
FILTERS: Final = ("environment", "state", "team", "application", "hygiene", "q", "sort", "cursor")
EXPIRIES: Final = {"never": None, "7d": 7 * DAY, "30d": 30 * DAY, "90d": 90 * DAY, "365d": 365 * DAY}


def overview(visit: Visit) -> Response:
    """The account's first page: its keyspaces, as far as one may see them, or whom to ask."""
    spaces = [space for space in visit.spaces if visit.may("keys:read", space)]
    if len(spaces) == 1 and visit.record is not None:
        return visit.go(visit.at(spaces[0].name, "keys"))
    return visit.page("overview.html", spaces=spaces, admins=[] if spaces else visit.admins)


# -------------------------------------------------------------------------------------------------------------- the list


def listing(visit: Visit) -> Response:
    """The keys of the account in a keyspace."""
    narrow = {name: value for name in FILTERS if (value := field(visit.query, name))}
    problem, flagged = "", is_secret(narrow.get("q"))
    try:
        page = visit.opened.keys.list(
            account=visit.account, keyspace=_space(visit).name, limit=50, reach=visit.reach, **narrow
        )
    except Invalid as wrong:
        problem, page = (
            str(wrong),
            visit.opened.keys.list(account=visit.account, keyspace=_space(visit).name, reach=visit.reach),
        )
    if flagged:
        narrow["q"] = page.items[0].id if page.items else ""
    return visit.page(
        "keys.html" if "HX-Request" not in visit.request.headers else "_keys.html",
        keys=page.items,
        next_cursor=page.next_cursor,
        narrow=Typed(narrow),
        flagged=flagged,
        problem=problem,
        recent=(lately := recent.of(visit, page.items)),
        nothing=recent.NOTHING,
        names=_names(visit, page.items),
        example=_example(visit) if not page.items else "",
        creating=_form(visit, visit.query, ""),
        status_of=lambda key: _status(visit, key, lately),
    )


def download(visit: Visit) -> Response:
    """The whole list as a file that a spreadsheet opens, narrowed as it is shown."""
    narrow = {name: value for name in FILTERS if name != "cursor" and (value := field(visit.query, name))}
    space, now = _space(visit).name, visit.opened.clock()
    found = visit.opened.keys.walk(account=visit.account, keyspace=space, reach=visit.reach, **narrow)
    lines = sheet.lines((shown.exported(key, now) for key in found), shown.EXPORTED)
    kept = {"Content-Disposition": f'attachment; filename="{space}-keys.csv"'}
    return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=kept)


def _status(visit: Visit, key: Key, lately: Mapping[str, recent.Recent]) -> words.Status:
    its = lately.get(key.id, recent.NOTHING)
    return words.status(key, visit.opened.clock(), its.day, its.hour)


def _names(visit: Visit, keys: Sequence[Key]) -> dict[str, str]:
    """What the people are called who made some keys."""
    made = (key.created_by.partition(":") for key in keys)
    return visit.opened.people.names_of({who for kind, _, who in made if kind == "person"})


def _example(visit: Visit) -> str:
    space = _space(visit)
    environment = "production" if "production" in space.environments else next(iter(space.environments))
    return before_the_first(space, str(visit.account), environment, visit.desk.settings.base_url)


# ------------------------------------------------------------------------------------------------------------ creation


def new(visit: Visit) -> Response:
    """The form; what the address says is filled in."""
    return visit.page("new_key.html", creating=_form(visit, visit.query, ""))


def create(visit: Visit) -> Response:
    """Make a key, and show its secret: here, now, and never again. Sent twice, it is made once."""
    space = _space(visit)
    try:
        asked = _asked(visit, space)
        given = field(visit.form, "once")
        once = read([given] if given else [], visit.caller.asker, f"POST {visit.path}", asked)
        issued = visit.opened.keys.create(
            **asked,
            account=visit.account,
            keyspace=space.name,
            actor=visit.caller.actor,
            reach=visit.reach,
            once=once,
        )
    except Replay as earlier:
        return visit.go(visit.keys_at(earlier.made), said="shown_once")
    except CallerError as wrong:
        return visit.page("new_key.html", status=wrong.status, creating=_form(visit, visit.form, str(wrong)))
    return _reveal(visit, issued, "created")


def _form(visit: Visit, given: Mapping[str, str], problem: str) -> dict[str, Any]:
    """What the form is drawn from: the fields that the profile asks for, and what was typed."""
    space, barred = _space(visit), _barred(visit)
    asked = [name for name in space.fields.ask if name != "environment"]
    if "access" not in asked and space.access.default in barred:
        asked.append("access")
    access = given.get("access") or space.access.default or ""
    scopes = visit.every("scopes") or [text for text in given.get("scopes", "").split(",") if text]
    environment = given.get("environment") or ("production" if "production" in space.environments else "")
    return {
        "problem": problem,
        "asked": asked,
        "required": space.fields.required,
        "given": Typed(given),
        "scopes": scopes,
        "access": "" if access in barred else access,
        "barred": barred,
        "environment": environment if environment in space.environments else "",
        "expires": given.get("expires") or ("default" if space.expiry.default else "never"),
        "matrix": _matrix(space),
        "in_dialog": set(asked) <= {"name", "description"},
        "sentence": words.sentence(space, given.get("access") or space.access.default, scopes),
    }


def _matrix(space: Keyspace) -> dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]]:
    """Scopes by what they are about, those that read apart from those that change: (scope, title)."""
    found: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {}
    for name, scope in space.scopes.items():
        cells = found.setdefault(name.partition(":")[0], ([], []))
        cells[0 if scope.reads else 1].append((name, scope.title))
    return found


def _barred(visit: Visit) -> frozenset[str]:
    """The kinds of access and the scopes that whoever visits cannot give a key, as their membership says."""
    space = _space(visit)
    kinds = {access: (access, ()) for access in get_args(Access)}
    scopes = {name: ("restricted", (name,)) for name in space.scopes}
    return frozenset(name for name, asked in (kinds | scopes).items() if not _may_give(visit, *asked))


def _may_give(visit: Visit, access: str, scopes: Sequence[str]) -> bool:
    try:
        visit.reach.give(_space(visit), access, scopes)
    except Exceeds:
        return False
    return True


def _asked(visit: Visit, space: Keyspace, *, editing: bool = False) -> dict[str, Any]:
    """What the form asks, as the desk takes it; one that edits may keep the expiry. Raises ``Invalid``."""
    form = visit.form
    asked: dict[str, Any] = {
        name: field(form, name)
        for name in ("name", "description", "access", "team", "application", "plan", "environment")
        if name in form
    }
    asked["name"] = form.get("name", "")
    if asked.get("access") == "restricted":
        asked["scopes"] = visit.every("scopes")
    if "limits" in form:
        asked["limits"] = form["limits"].split() or None
    if "allowed_ips" in form:
        asked["allowed_ips"] = form["allowed_ips"].split() or None
    if "metadata" in form:
        asked["metadata"] = _json(form["metadata"]) if field(form, "metadata") else None
    if "expires" in form and not (editing and form["expires"] == "keep"):
        asked |= _expiry(form, space, visit.opened.clock())
    return asked


def _expiry(form: Mapping[str, str], space: Keyspace, now: int) -> dict[str, Any]:
    chosen = form["expires"]
    if chosen == "default" and space.expiry.default is not None:
        return {}
    if chosen == "on":
        day = form.get("expires_on", "")
        return {"expires_at": parse_instant(f"{day}T00:00:00Z", path="expires_on")}
    if chosen not in EXPIRIES:
        raise Invalid(f"is one of {', '.join(EXPIRIES)}", path="expires")
    seconds = EXPIRIES[chosen]
    return {"expires_at": None if seconds is None else now - now % SECOND + seconds * SECOND}


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        raise Invalid("is not JSON", path="metadata") from None


def _reveal(visit: Visit, issued: Issued, how: str) -> Response:
    space, key = _space(visit), issued.key
    url = example_url(space, key, visit.desk.settings.base_url)
    pairs = any(SCHEMES[scheme].carries_pair for scheme in space.schemes)
    tokens = not all(SCHEMES[scheme].carries_pair for scheme in space.schemes)
    return visit.page(
        "reveal.html",
        key=key,
        credential=issued.credential,
        shows_pair=pairs and issued.credential.secret is not None,
        shows_token=tokens,
        presentations=presentations(space, issued.credential, key.account, url),
        how=how,
    )


def test(visit: Visit) -> Response:
    """Verify a credential that was just shown, without counting it: what the button says."""
    ask = Ask(
        _space(visit).name, None, authenticate_only=True, account=visit.account, metered=False, recorded=False
    )
    found = visit.opened.keys.get(visit.request.path_params["key_id"], reach=visit.reach)
    ask = msgspec.structs.replace(ask, environment=found.environment)
    given = from_mapping(
        [(name, value) for name, _, value in (line.partition(": ") for line in visit.every("header"))]
    )
    verdict = visit.opened.engine.verify(ask, given, visit.opened.clock(), request_id=visit.request_id)
    return JSONResponse({"valid": verdict.valid, "code": verdict.code})


# ------------------------------------------------------------------------------------------------------- a key's own page


def detail(visit: Visit) -> Response:
    """A key: what it is, what it may, its secrets, its last days, what was refused, and who did what to it."""
    key = _key(visit)
    may_use = visit.may("usage:read", visit.space)
    request = field(visit.query, "request")
    days = recent.days(visit, key) if may_use else []
    refused = (
        visit.opened.refusals.list(
            account=visit.account,
            keyspace=key.keyspace,
            key=key.id,
            request_id=request,
            limit=10,
            reach=visit.reach,
        ).items
        if may_use
        else ()
    )
    history = (
        visit.opened.trail.list(target=key.id, limit=50, reach=visit.reach).items
        if visit.may("audit:read")
        else ()
    )
    alerts = (
        visit.opened.alerts.list(key=key.id, state="open", limit=10, reach=visit.reach).items
        if visit.may("alerts:read", visit.space)
        else ()
    )
    return visit.page(
        "key.html",
        key=key,
        alerts=[RULES[one.rule].sentence for one in alerts],
        state=_status(visit, key, recent.of(visit, [key])),
        sentence=words.sentence(_space(visit), key.access, key.scopes),
        spent=visit.opened.keys.limits(key.id, reach=visit.reach) if may_use else (),
        maker=words.maker(key.created_by, _names(visit, [key])),
        metadata=_spelled(key.metadata),
        like=_like(key),
        found=_advice(key, visit.opened.clock()),
        days=days,
        outcomes=recent.outcomes(days),
        resources=recent.resources(visit, key) if may_use else [],
        refused=refused,
        request=request or "",
        history=history,
        names=visit.opened.people.names_of(
            {one["actor_id"] for one in history if one["actor_kind"] == "person"}
        ),
        live=[one for one in key.secrets if one.ends_at is None or one.ends_at > visit.opened.clock()],
        reason_of=words.refusal,
        act_of=words.act,
    )


def _advice(key: Key, now: int) -> list[str]:
    """What is found of a key that its page has advice on; of what comes to the same, the more urgent."""
    found = [name for name in findings(key, now) if name in words.ADVICE]
    return [name for name in found if name != "unused" or "ending_unused" not in found]


def _like(key: Key) -> str:
    """What fills the form for another key like this one: all but its name and its expiry."""
    filled = {
        "environment": key.environment, "access": key.access, "scopes": ",".join(key.scopes), "description": key.description,
        "team": key.team, "application": key.application, "plan": key.plan,
        "limits": "\n".join(words.limit(limit) for limit in key.limits), "allowed_ips": "\n".join(key.allowed_ips),
        "metadata": _spelled(key.metadata),
    }  # fmt: skip
    return urlencode({name: value for name, value in filled.items() if value})


def _spelled(metadata: Mapping[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(metadata)).decode() if metadata else ""


def edit_form(visit: Visit) -> Response:
    """The form to change a key with, as it is now."""
    return _edit_page(visit, _key(visit), "", 200)


def _edit_page(visit: Visit, key: Key, problem: str, status: int) -> Response:
    given = visit.form or Typed({
        "name": key.name, "description": key.description, "team": key.team or "",
        "application": key.application or "", "access": key.access, "plan": key.plan or "",
        "limits": "\n".join(words.limit(limit) for limit in key.limits), "allowed_ips": "\n".join(key.allowed_ips),
        "expires": "keep", "metadata": _spelled(key.metadata),
    })  # fmt: skip
    scopes = visit.every("scopes") if visit.form else list(key.scopes)
    return visit.page(
        "edit_key.html",
        status=status,
        key=key,
        problem=problem,
        given=given,
        scopes=scopes,
        matrix=_matrix(_space(visit)),
        barred=_barred(visit),
    )


def edit(visit: Visit) -> Response:
    """Change a key. Its secret and its environment stay as they are."""
    key = _key(visit)
    try:
        asked = _asked(visit, _space(visit), editing=True)
        asked.pop("environment", None)
        if asked.get("access") not in (None, "restricted"):
            asked["scopes"] = None
        visit.opened.keys.edit(key.id, **asked, actor=visit.caller.actor, reach=visit.reach)
    except CallerError as wrong:
        return _edit_page(visit, key, str(wrong), wrong.status)
    return visit.go(visit.keys_at(key.id), said="edited")


# --------------------------------------------------------------------------------------------------- what is done to a key


def confirm(visit: Visit) -> Response:
    """Before what cannot be undone: when and from where the key was last used, and what will stop."""
    return _confirm_page(visit, "", 200)


def _confirm_page(visit: Visit, problem: str, status: int) -> Response:
    act = visit.request.path_params["act"]
    if act not in words.CONFIRM:
        raise Invalid(words.NOT_FOUND)
    key = _key(visit)
    return visit.page(
        f"{act}.html", status=status, key=key, problem=problem, used_lately=_used_lately(visit, key),
        calls=_calls_today(visit, key),
    )  # fmt: skip


def _used_lately(visit: Visit, key: Key) -> bool:
    return key.last_used_at is not None and visit.opened.clock() - key.last_used_at < DAY * SECOND


def _calls_today(visit: Visit, key: Key) -> int | None:
    if not visit.may("usage:read", visit.space):
        return None
    since = visit.opened.clock() - DAY * SECOND
    report = visit.opened.usage.report(
        account=visit.account, keyspace=key.keyspace, key=key.id, since=since, by="total", reach=visit.reach
    )
    return report.total


def act(visit: Visit) -> Response:
    """Rotate, invalidate or delete, as it was confirmed."""
    key, doing = _key(visit), visit.request.path_params["act"]
    try:
        if doing == "rotate":
            return _rotate(visit, key)
        if doing == "invalidate":
            if _used_lately(visit, key):
                _typed(visit, key)
            reason = field(visit.form, "reason")
            visit.opened.keys.invalidate(key.id, reason=reason, actor=visit.caller.actor, reach=visit.reach)
            return visit.go(visit.keys_at(key.id), said="invalidated")
        if doing == "delete":
            _typed(visit, key)
            visit.opened.keys.delete(key.id, actor=visit.caller.actor, reach=visit.reach)
            return visit.go(visit.keys_at(), said="deleted")
    except CallerError as wrong:
        return _confirm_page(visit, str(wrong), wrong.status)
    raise Invalid(words.NOT_FOUND)


def _typed(visit: Visit, key: Key) -> None:
    """Hold whoever stops a key for ever to having typed its name. Raises ``Invalid``."""
    if visit.form.get("name", "").strip() != key.name:
        raise Invalid(words.TYPE_THE_NAME, path="name")


def _rotate(visit: Visit, key: Key) -> Response:
    grace = visit.form.get("grace", str(DAY))
    if grace == "hours":
        hours = visit.form.get("hours", "").strip()
        grace = str(int(hours) * 3600) if hours.isdigit() and len(hours) < 5 else ""
    issued = visit.opened.keys.rotate(
        key.id,
        grace_seconds=int(grace) if grace.isdigit() and len(grace) < 9 else -1,
        start="first_use" if visit.form.get("start") == "first_use" else "now",
        force=visit.form.get("force") == "yes",
        actor=visit.caller.actor,
        reach=visit.reach,
    )
    return _reveal(visit, issued, "rotated")


def _switching(doing: str) -> Callable[[Visit], Response]:
    """Disable, enable, or end one side of a rotation: what one click does and another undoes."""

    def switch(visit: Visit) -> Response:
        keys, key_id = visit.opened.keys, visit.request.path_params["key_id"]
        seconds = field(visit.form, "for")
        if doing == "disable" and seconds is not None:
            pause = int(seconds) if seconds.isdigit() and len(seconds) < 9 else 0
            keys.disable(key_id, for_seconds=pause, actor=visit.caller.actor, reach=visit.reach)
            return visit.go(visit.keys_at(key_id), said="disable_for")
        verbs = {"disable": keys.disable, "enable": keys.enable, "finish": keys.finish, "cancel": keys.cancel}
        verbs[doing](key_id, actor=visit.caller.actor, reach=visit.reach)
        return visit.go(visit.keys_at(key_id), said=doing)

    return switch


def _space(visit: Visit) -> Keyspace:
    assert visit.space is not None
    return visit.space


def _key(visit: Visit) -> Key:
    """The key of the path, which must be of the path's keyspace."""
    key = visit.opened.keys.get(visit.request.path_params["key_id"], reach=visit.reach)
    visit.reach.needs("keyspace", key.keyspace)
    return key


_AT: Final = "/console/@{account}/{keyspace}/keys"
PAGES: Final = (
    Page("GET", "/console/@{account}", overview),
    Page("GET", _AT, listing, "keys:read"),
    Page("GET", f"{_AT}.csv", download, "keys:read"),
    Page("GET", f"{_AT}/new", new, "keys:write"),
    Page("POST", _AT, create, "keys:write"),
    Page("GET", _AT + "/{key_id}", detail, "keys:read"),
    Page("GET", _AT + "/{key_id}/edit", edit_form, "keys:write"),
    Page("POST", _AT + "/{key_id}/edit", edit, "keys:write"),
    Page("POST", _AT + "/{key_id}/test", test, "keys:write"),
    *(
        Page("POST", _AT + "/{key_id}/" + doing, _switching(doing), "keys:write")
        for doing in ("disable", "enable", "finish", "cancel")
    ),
    Page("GET", _AT + "/{key_id}/{act}", confirm, "keys:write"),
    Page("POST", _AT + "/{key_id}/{act}", act, "keys:write"),
)
