"""Every word of the console that is not a profile's own, in one place."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from keywright import hygiene, limits, reasons
from keywright.errors import CODES, CallerError, Throttled
from keywright.model import Key, Keyspace, Limit
from keywright.schemes import SCHEMES


class Finding(NamedTuple):
    """What hygiene finds: its name, what is wrong with it, and the right act: at once, or on a page of the key."""

    title: str
    why: str
    act: str
    says: str


BRAND: Final = "Keywright"
TOO_LARGE: Final = "What was sent is too large. Nothing was changed."
UNAVAILABLE: Final = "The store does not answer right now. Nothing was changed; try again in a moment."
BROKEN: Final = "Something of ours is broken; the log has more under the id of this request."
NOT_FOUND: Final = "There is no such page, or it is not yours to see."
OPERATORS_ONLY: Final = "This page is for those who run the installation."
ELSEWHERE: Final = "You were signed in by another system: there is no password of yours here."
#: What a visitor of the portal is told who has no page of the host's to go back to.
LEFT: Final = {
    "signed_out": ("You are signed out", "You can close this page."),
    "session_ended": ("Your visit has ended", "Open it again from where you came from."),
}
#: The way back to the host, where the profile has no words for it.
BACK: Final = "Back"
LINK_GONE: Final = (
    "This link does not work any more",
    "It works once, and for a quarter of an hour. Open it again from where you came from.",
)
STALE_FORM: Final = (
    "the form was opened before you signed in last; go back, reload the page and send it again"
)
SESSION_ENDED: Final = "Your session has ended. Sign in again; nothing was changed."
CODE_NEEDED: Final = "Type your password again, and the code that your authenticator shows beside it."
NOT_LET_IN: Final = "You signed in there, and have no place here. Ask whoever runs this installation to invite your address of mail."
SOMEBODY_ELSE: Final = "Somebody else signed in there. Nothing was opened; try again, as yourself."
TURNED_AWAY: Final = "You were not signed in there. Try again, or ask whoever looks after that sign-in."
ASTRAY: Final = (
    "That sign-in could not be finished: it was begun too long ago or elsewhere, or was used. Begin again."
)
PROVIDER_DOWN: Final = "The sign-in of your company does not answer right now. Try again in a moment, or use your password if you have one."
SCAN_AGAIN: Final = (
    "The code is wrong, or was used. Wait for the next one; if it is refused too, begin again."
)
NOT_THE_SAME: Final = "is not what was typed the first time"
NOTHING_CHOSEN: Final = "Tick some keys first, two hundred at most, and choose what to do with them."
TYPE_THE_ACCOUNT: Final = "Type the name of the account as it stands beside the box. Nothing was changed."
NOT_YOURS_TO_GIVE: Final = "not yours to give: your own access does not have it"
NO_SUCH_REQUEST: Final = "No request with that id was refused with this key, as far as the log goes back."
TYPE_THE_NAME: Final = "does not match: type the key's name as it stands above"

_ERRORS: Final = {
    401: "Sign in again",
    403: "You may not do this",
    404: "Nothing here",
    409: "That does not fit",
    413: "Too large",
    422: "That cannot be carried out",
    429: "Too many attempts",
    503: "Not right now",
}
#: What is told after an act, by the word that stands in the address.
SAID: Final = {
    "signed_out": "You are signed out.",
    "factor_wanted": "Your role needs a second factor here. Set one up; everything else opens then.",
    "factor_removed": "Your second factor is gone. Every other session has ended.",
    "session_ended": "That session has ended.",
    "password_changed": "Your password was changed. Every other session has ended.",
    "shown_once": "This key was made already. Its secret was shown once; rotate the key if it is lost.",
    "edited": "Saved. The next request obeys it.",
    "disable": "Disabled. Requests with this key are refused from now on; enable it to let them in again.",
    "disable_for": "Disabled for a time. It comes back by itself; enable it to let it in sooner.",
    "enable": "Enabled.",
    "finish": "The old secret has ended.",
    "cancel": "The new secret has ended; the old one goes on.",
    "invalidated": "Invalidated, for ever.",
    "deleted": "Deleted. Requests with that key are refused.",
    "hygiene_disable": "Disabled. Enable one on its page if somebody misses it.",
    "hygiene_extend": "They end in ninety days.",
    "hygiene_none": "None of them could be changed. Look at each.",
    "bulk_none": "None of them could be changed so. Look at each.",
    "bulk_disable": "The chosen keys are disabled.",
    "bulk_enable": "The chosen keys are enabled.",
    "bulk_invalidate": "The chosen keys are invalidated.",
    "bulk_delete": "The chosen keys are deleted.",
    "role_changed": "Their place was changed. They sign in anew.",
    "removed": "They are out.",
    "person_disabled": "They are shut out, and so are the management keys they made.",
    "person_enabled": "They can sign in again.",
    "person_unlinked": "Unlinked. What their groups gave is gone, and they are signed out.",
    "suspended": "Suspended. Every key of the account is refused.",
    "activated": "Active.",
    "account_created": "The account was made.",
    "acknowledge": "Acknowledged: others see that you have seen it.",
    "resolve": "Resolved. For its rule's quiet time nothing is raised of the same.",
    "alert_disable": "The key is disabled. Requests with it are refused from now on.",
    "alert_invalidate": "The key is invalidated, for ever.",
}
#: What one can do about an alert.
ALERT_ACTS: Final = {
    "acknowledge": "Acknowledge",
    "resolve": "Resolve",
    "disable": "Disable the key",
    "invalidate": "Invalidate the key",
}
#: What hygiene finds: what it is called, what is wrong with it, what can be done (an act at once, or a page), and its words.
HYGIENE: Final = {
    "ending_unused": Finding(
        "Ending unused",
        "Nobody uses them, and within fourteen days they end by themselves. Use those that are needed.",
        "disable",
        "Disable now",
    ),
    "unused": Finding(
        "Unused", "Nobody has used them for thirty days. Whoever finds one can.", "disable", "Disable"
    ),
    "expiring": Finding(
        "Expiring",
        "They end within fourteen days, and with them whatever uses them.",
        "extend",
        "90 days more",
    ),
    "maker_lost_rights": Finding(
        "Maker without rights",
        "Whoever made them could not make them today, and may still know their secrets.",
        "rotate",
        "Rotate",
    ),
    "all_access": Finding(
        "May do everything",
        "More than most programs need: choose less, and less is lost.",
        "edit",
        "Choose less",
    ),
    "no_limit": Finding(
        "Without a limit",
        "The keyspace has limits or plans, and these keys none: one in a loop uses up what all share.",
        "edit",
        "Give it one",
    ),
    "no_expiry": Finding(
        "Without expiry", "A copy that somebody forgot works for ever.", "extend", "End in 90 days"
    ),
    "old": Finding(
        "Old",
        "Their secret has been the same for a year. Rotate it: both work for a while.",
        "rotate",
        "Rotate",
    ),
}
#: What a key's own page says of it.
ADVICE: Final = {
    "ending_unused": "Nobody uses it, and it ends within fourteen days if that stays so. One request with it keeps it.",
    "unused": "Nobody has used it for thirty days: disable it, and enable it if somebody misses it.",
    "expiring": "It ends within fourteen days, and with it whatever uses it.",
}
#: How many scopes are found by looking; of more, one searches.
MANY_SCOPES: Final = 8
#: What can be confirmed, and the template that asks.
CONFIRM: Final = ("rotate", "invalidate", "delete")
_RIGHTS: Final = {
    "keys:read": "see these keys",
    "keys:write": "make or change keys here",
    "usage:read": "see usage here",
    "people:read": "see who is a member",
    "people:write": "invite or change members",
    "audit:read": "see the audit trail",
    "alerts:read": "see alerts",
    "alerts:write": "see to alerts",
    "management-keys:read": "see management keys",
    "management-keys:write": "make or change management keys",
}
_ACTS: Final = {
    "key.create": "made the key",
    "key.edit": "changed the key",
    "key.rotate": "gave the key a new secret",
    "key.rotate_finish": "ended the old secret",
    "key.rotate_cancel": "ended the new secret",
    "key.invalidate": "invalidated the key",
    "key.disable": "disabled the key",
    "key.enable": "enabled the key",
    "key.delete": "deleted the key",
    "key.first_use": "ended the old secret, since the new one is used",
    "key.leaked": "was told that the key had leaked",
    "key.purge": "removed for good what was left of deleted keys",
    "account.create": "made the account",
    "account.suspend": "suspended the account",
    "account.activate": "activated the account",
    "account.limit": "set the account's limits",
    "keyspace.apply": "applied the keyspace",
    "installation.prepare": "prepared the installation",
    "refusal.purge": "removed old refusals",
    "usage.purge": "removed old counts of usage",
    "person.invite": "invited somebody",
    "person.change": "changed a member's place",
    "person.remove": "removed a member",
    "person.disable": "shut somebody out",
    "person.enable": "let somebody in again",
    "person.appoint": "made somebody an operator",
    "person.dismiss": "made an operator none",
    "person.reset": "made a link for a new password",
    "person.password": "changed their password",
    "person.factor_begin": "began to set up a second factor",
    "person.factor": "set up a second factor",
    "person.factor_codes": "drew new recovery codes",
    "person.factor_remove": "took their second factor away",
    "person.recovery": "used a recovery code",
    "person.unlink": "made somebody a stranger to the identity provider",
    "session.begin": "signed in",
    "session.end": "signed out",
    "session.refused": "was not let in",
    "session.prove": "gave their password again",
    "link.setup": "set the installation up",
    "link.invitation": "accepted an invitation",
    "link.reset": "chose a new password",
    "portal.open": "opened the portal for somebody",
    "portal.begin": "came in by the portal",
    "portal.end": "ended the visit",
    "webhook.create": "made the webhook",
    "webhook.edit": "changed the webhook",
    "webhook.rotate": "rotated the webhook's signing secret",
    "webhook.verify": "verified the webhook",
    "webhook.disable": "disabled the webhook",
    "webhook.enable": "enabled the webhook",
    "webhook.fail": "disabled the webhook, which took nothing",
    "webhook.delete": "deleted the webhook",
    "webhook.test": "sent the webhook a test",
    "webhook.redeliver": "had the webhook sent again what was given up",
    "alert.acknowledge": "acknowledged the alert",
    "alert.resolve": "resolved the alert",
    "refused": "was refused",
}


_REASONS: Final = {"unused": "Nobody had used it for as long as the keyspace lets a key be unused."}

#: The part of a day's requests from which on a badge tells that they were refused.
MANY: Final = 0.1
_MAKERS: Final = {"management_key": "management key", "command": "the command", "library": "the library"}


class Status(NamedTuple):
    """What a key's badge says, and how it looks: good, warn, bad, or off."""

    text: str
    look: str


class Entry(NamedTuple):
    """An entry of the menu: under which headings it stands, what it says, where it leads."""

    under: tuple[str, ...]
    text: str
    path: str


def code_refused(refused: CallerError) -> str:
    """Why a code was not taken, by itself: whose it is, is known already."""
    return (
        str(refused)
        if isinstance(refused, Throttled)
        else "The code is wrong, or was used. Wait for the next one."
    )


def error(status: int) -> str:
    """What a page of an error is called."""
    return _ERRORS.get(status, "Something went wrong")


def may_not(scope: str, admins: Sequence[str]) -> str:
    """What somebody is told whose role does not allow it, and whom to ask."""
    whom = f"Ask {', '.join(admins[:3])}." if admins else "An admin of the account can."
    return f"Your role does not let you {_RIGHTS.get(scope, scope)}. {whom}"


def act(name: str) -> str:
    """What somebody did, as a page tells it."""
    return _ACTS.get(name, name)


def why(reason: str) -> str:
    """Why a key stopped, as a page tells it: a word of ours in a sentence, and what somebody wrote as it is."""
    return _REASONS.get(reason, reason)


def maker(created_by: str, names: Mapping[str, str]) -> str:
    """Who made a key, as a page tells it."""
    kind, _, who = created_by.partition(":")
    if kind == "person":
        return names.get(who, who)
    if kind == "visitor":
        return who
    return _MAKERS.get(kind, kind.replace("_", " ")) + (
        f" {who}" if kind in ("key", "management_key") else ""
    )


def outcome(code: str) -> str:
    """What became of a request, in a few words."""
    return "Let in" if code == "ok" else CODES[code].title


def refusal(code: str, reason: str) -> str:
    """Why a request was refused, as a page tells it."""
    return reasons.say(code, reason)


def limit(one: Limit) -> str:
    """A limit, as it is typed."""
    return limits.spell(one)


def spent(one: limits.Standing) -> str:
    """How much of a limit is used, and whose it is if not the key's own."""
    of = f"{one.limit.limit:,} credits" if one.limit.kind == "credits" else limits.spell(one.limit)
    if one.whose == "account":
        of += ", with the account's other keys"
    return f"{one.used:,} of {of}"


def status(key: Key, now: int, day: Mapping[str, int], hour: Mapping[str, int]) -> Status:
    """The badge of a key: the worst of what can be said of it. ``day`` and ``hour`` are its latest verdicts, by code."""
    if key.state == "invalidated":
        return Status("Invalidated", "off")
    if key.state == "expired":
        return Status("Expired", "off")
    if key.state == "disabled":
        return Status("Disabled", "bad")
    if len([one for one in key.secrets if one.ends_at is None or one.ends_at > now]) > 1:
        return Status("Rotating", "warn")
    if hour.get("quota_exhausted"):
        return Status("Quota used up", "bad")
    asked = sum(day.values())
    if day.get("rate_limited", 0) > asked * MANY:
        return Status("Rate limited", "warn")
    if asked - day.get("ok", 0) > asked * MANY:
        return Status("Many refusals", "warn")
    found = hygiene.findings(key, now)
    if "expiring" in found:
        return Status("Expires soon", "warn")
    if key.flags:
        return Status("Look at it", "warn")
    if "ending_unused" in found:
        return Status("Ends unused", "warn")
    if "unused" in found:
        return Status("Unused", "warn")
    return Status("Never used", "off") if key.last_used_at is None else Status("Active", "good")


def sentence(space: Keyspace, access: str | None, scopes: Sequence[str]) -> str:
    """What a key will be able to do, in a sentence."""
    noun = space.labels.get("noun", "key")
    if access == "all":
        return f"This {noun} can read and change everything in {space.title}."
    if access == "read_only":
        return f"This {noun} can read everything in {space.title}, and change nothing."
    if access == "restricted":
        titles = [space.scopes[name].title.lower() for name in scopes if name in space.scopes]
        return (
            f"This {noun} can {', '.join(titles)}."
            if titles
            else f"This {noun} can do nothing yet: tick what it may do."
        )
    return f"Choose what this {noun} can do."


def spellings(space: Keyspace) -> frozenset[str]:
    """The spellings that the keyspace's schemes use of a secret, and those of none: what a key's hint is shown of."""
    pairs = {SCHEMES[scheme].carries_pair for scheme in space.schemes}
    return frozenset("secret" if pair else "token" for pair in pairs) | {"imported"}


def label(space: Keyspace, name: str) -> str:
    """A word of the profile's, or ours where it has none."""
    noun = space.labels.get("noun", "key")
    ours = {
        "noun": noun,
        "secret_noun": f"{noun} secret",
        "start": f"Create {noun}",
        "submit": "Create",
        "continue": "Continue",
        "edit": "Edit",
        "rotate": "Rotate",
        "invalidate": "Invalidate",
        "delete": "Delete",
        "disable": "Disable",
        "enable": "Enable",
        "title": space.navigation[-1] if space.navigation else f"{noun[0].upper()}{noun[1:]}s",
    }
    return space.labels.get(name, ours[name])


#: Pages of an account beside its keys: what it takes to open one, what it is called, where it is.
ACCOUNT_PAGES: Final = (
    ("keys:read", "Hygiene", "hygiene"),
    ("alerts:read", "Alerts", "alerts"),
    ("usage:read", "Usage", "usage"),
    ("people:read", "Members", "people"),
    ("management-keys:read", "Management keys", "management-keys"),
    ("audit:read", "Audit trail", "audit"),
)


def operator_menu() -> list[Entry]:
    """Where an operator can go."""
    pages = (
        ("Accounts", "accounts"),
        ("People", "people"),
        ("Keyspaces", "keyspaces"),
        ("Management keys", "management-keys"),
        ("Alerts", "alerts"),
        ("Usage", "usage"),
        ("Audit trail", "audit"),
        ("Health", "health"),
    )
    return [Entry((), text, f"/console/operator/{path}") for text, path in pages]
