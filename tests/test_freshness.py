"""Promise 2: no verification that starts after a change has been answered succeeds on the old state."""

import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from child import Child
from conftest import EVERY as EVERY_SOURCE
from conftest import again, bearer, make, sql
from keywright import Invalid, Issued, Keywright, KeywrightError, propagation
from keywright.cache import Cache
from keywright.clock import process_clock
from keywright.engine import AtHand
from keywright.installation import _leave as leave
from keywright.model import KeyRecord, Propagation
from keywright.store import changes
from keywright.testing import Clock
from keywright.times import SECOND
from postgres import SECRET

pytestmark = pytest.mark.stores

ROUNDS = 500 if os.environ.get("KEYWRIGHT_PROOF") else 56
VERIFICATIONS = 1000 if os.environ.get("KEYWRIGHT_PROOF") else 300
EVERY = {"keyspace": "every", "environment": "production"}


def second(kw: Keywright) -> Keywright:
    """The same installation, opened once more, as another process would."""
    return again(kw)


# ------------------------------------------------------------------------------------- announcements that are trimmed


def told(kw: Keywright, many: int, now: int = 0) -> list[int]:
    """Announce that many changes of nobody's, in one transaction; their numbers."""
    with kw.installation.database.write() as tx:
        for _ in range(many):
            changes.note(tx, "account", "nobody", now)
        newest = changes.newest(tx)
    return list(range(newest - many + 1, newest + 1))


@pytest.mark.security("R-05", "T-27")
def test_who_missed_what_was_trimmed_forgets_everything(kw: Keywright) -> None:
    """Another process that is behind the oldest announcement that is left answers nothing from what it remembers."""
    key, account = make(kw), make(kw, account="initech")
    database = kw.installation.database
    with second(kw) as other:
        assert [other.verify(bearer(one), **EVERY).code for one in (key, account)] == ["ok", "ok"]
        with database.write() as tx:  # one commit: nobody sees the announcements before they are gone
            sql(tx, "UPDATE keys SET state = 'invalidated' WHERE id = ?", key.key.id)
            changes.note(tx, "key", key.key.id, 0)
            sql(tx, "UPDATE accounts SET state = 'suspended' WHERE username = 'initech'")
            changes.note(tx, "account", "initech", 0)
            for _ in range(3):
                changes.note(tx, "account", "nobody", 0)
            newest = changes.newest(tx)
            changes.trim(tx, newest - 1)
        propagation.follow(database, newest, 0, Propagation())

        found = [other.verify(bearer(one), **EVERY).code for one in (key, account)]
    assert found == ["invalidated", "account_suspended"]


@pytest.mark.security("R-05")
def test_only_who_may_have_missed_something_is_told_so(kw: Keywright) -> None:
    """Whoever has acted upon the last that was trimmed, or a later one, is told what is new and no more."""
    lookup, numbers = kw.installation.lookup, told(kw, 10)
    with kw.installation.database.write() as tx:
        changes.trim(tx, numbers[5])

    kinds = {after: [kind for _, kind, _ in lookup.changes(after)] for after in (0, *numbers)}
    for place, after in enumerate((0, *numbers)):
        left = ["account"] * min(4, 10 - place)
        assert sorted(kinds[after]) == left + (["all"] if after < numbers[5] else []), place
    behind = lookup.changes(0)
    assert [seq for seq, kind, _ in behind if kind == "all"] == [numbers[-1]]


def test_a_day_and_the_newest_are_kept(kw: Keywright, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is older than a day and not among the newest goes, never a younger one before an older, never the last."""
    monkeypatch.setattr(changes, "KEPT", 5)
    monkeypatch.setattr(changes, "AT_ONCE", 3)
    yesterday = told(kw, 20, clock())
    clock.advance(days=1)
    kw.installation.upkeep.forget()
    assert _oldest(kw) < yesterday[0]
    clock.advance(seconds=1)
    young = told(kw, 2, clock() - 1)
    old = told(kw, 1, 0)  # a clock that was put back
    kw.installation.upkeep.forget()
    assert _oldest(kw) == yesterday[-2]  # with those that are younger the newest five
    monkeypatch.setattr(changes, "KEPT", 1)
    kw.installation.upkeep.forget()
    assert _oldest(kw) == young[0]
    clock.advance(days=2)
    kw.installation.upkeep.forget()
    kw.installation.upkeep.forget()
    assert _oldest(kw) == old[0] == kw.installation.lookup.newest()


def _oldest(kw: Keywright) -> int:
    with kw.installation.database.read() as connection:
        return changes.oldest(connection) or 0


def test_of_what_is_no_longer_told_any_key_may_have_changed(kw: Keywright) -> None:
    """A key that is watched from a number on counts as changed, where not all that came since is left."""
    numbers = told(kw, 5)
    with kw.installation.database.write() as tx:
        assert not changes.since(tx, numbers[0], "a key")
        changes.trim(tx, numbers[2])
        assert [changes.since(tx, number, "a key") for number in numbers] == [True, True, False, False, False]


# --------------------------------------------------------------------------------------------- what costs nothing


def test_a_cached_verification_asks_the_store_nothing(kw: Keywright) -> None:
    """Once a key is known, verifying it asks no statement besides the version check, whatever scheme carries it."""
    key = make(kw)
    token = key.credential.token.reveal()
    assert key.credential.secret is not None
    presented = [
        bearer(key),
        {"X-API-KEY": key.key.id, "X-API-SECRET": key.credential.secret.reveal()},
        {"x-api-key": token, "x-api-user": "globex"},
        {"X-Token": token},
    ]
    assert kw.verify(presented[0], **EVERY).code == "ok"
    before = kw.installation.lookup.statements

    for headers in presented * 5:
        assert kw.verify(headers, **EVERY).code == "ok"

    assert kw.installation.lookup.statements == before


def test_what_was_proven_is_known_for_as_long_as_its_record(kw: Keywright) -> None:
    """A change forgets what proved the key it names, in each of its spellings, and of no other key."""
    key, other = make(kw), make(kw)
    assert key.credential.secret is not None
    pair = {"X-API-KEY": key.key.id, "X-API-SECRET": key.credential.secret.reveal()}
    for headers in (bearer(key), pair, bearer(other)):
        assert kw.verify(headers, **EVERY).code == "ok"
    cache = kw.installation.cache
    assert len(cache._proofs) == 3

    kw.keys.invalidate(key.key.id)

    assert [kw.verify(headers, **EVERY).code for headers in (bearer(key), pair)] == ["invalidated"] * 2
    assert {record.state for record in cache._proofs.values()} == {"active", "invalidated"}
    for state, change in (("suspended", kw.accounts.suspend), ("active", kw.accounts.activate)):
        change("globex")
        kw.verify({}, **EVERY)
        assert cache._proofs == {}, state
        kw.verify(bearer(other), **EVERY)


def test_a_key_that_makes_room_takes_its_proofs_along(kw: Keywright) -> None:
    """Where memory is full, what proved the key that goes is forgotten with it."""
    cache = kw.installation.cache
    cache._capacity = 2
    for _ in range(4):
        assert kw.verify(bearer(make(kw)), **EVERY).code == "ok"

    assert len(cache) == len(cache._proofs) == 2


@pytest.mark.security("T-21")
def test_a_proven_secret_is_accepted_in_neither_others_spelling(kw: Keywright) -> None:
    """Check characters of one spelling are refused in the other, whichever of the two was proven before."""
    key = make(kw)
    assert key.credential.secret is not None
    token, secret = key.credential.token.reveal(), key.credential.secret.reveal()
    crossed = [
        ({"X-Token": token[:-6] + secret[-6:]}, {"X-Token": token}),
        ({"X-API-KEY": key.key.id, "X-API-SECRET": secret[:-6] + token[-6:]}, {"X-API-KEY": key.key.id, "X-API-SECRET": secret}),
    ]  # fmt: skip
    for wrong, right in (*crossed, *crossed):
        assert (kw.verify(wrong, **EVERY).code, kw.verify(right, **EVERY).code) == ("invalid", "ok")


def test_what_cannot_be_a_key_asks_the_store_nothing(kw: Keywright) -> None:
    """Malformed, missing, doubled and mistyped credentials are refused without a statement."""
    key = make(kw)
    kw.verify(bearer(key), **EVERY)
    token = key.credential.token.reveal()
    other = make(kw).credential.token.reveal()
    kw.verify({}, **EVERY)  # acts upon the creation
    before = kw.installation.lookup.statements

    for value in (
        "",
        "x",
        token[:-1],
        token + "a",
        f"every_live_k{'0' * 15}_{'A' * 32}000000",
        other[:-1] + "~",
    ):
        assert not kw.verify({"Authorization": f"Bearer {value}"}, **EVERY)
    assert not kw.verify([("Authorization", f"Bearer {token}"), ("X-Token", token)], **EVERY)
    assert not kw.verify({}, **EVERY)
    mistyped = token[:-8] + ("A" if token[-8] != "A" else "B") + token[-7:]
    assert kw.verify({"Authorization": f"Bearer {mistyped}"}, **EVERY).reason == "wrong_secret"

    assert kw.installation.lookup.statements == before


@pytest.mark.security("T-25", "R-25")
def test_unknown_ids_are_asked_for_once_and_push_nothing_out(kw: Keywright) -> None:
    """Ids that do not exist are remembered apart, a bounded number of them; good keys stay known through a flood."""
    from keywright.cache import ABSENT_AT_MOST
    from keywright.credential import new_id, new_secret, spell_token

    good = [make(kw) for _ in range(5)]
    for key in good:
        kw.verify(bearer(key), **EVERY)
    unknown = {"Authorization": f"Bearer {spell_token(new_id('every', 'live'), new_secret())}"}
    kw.verify(unknown, **EVERY)
    before = kw.installation.lookup.statements
    assert kw.verify(unknown, **EVERY).reason == "unknown"
    assert kw.installation.lookup.statements == before

    for _ in range(ABSENT_AT_MOST + 500):
        kw.verify({"X-Token": spell_token(new_id("every", "live"), "A" * 32)}, **EVERY)
    before = kw.installation.lookup.statements
    assert [kw.verify(bearer(key), **EVERY).code for key in good] == ["ok"] * 5
    assert kw.installation.lookup.statements == before
    assert len(kw.installation.cache._absent) <= ABSENT_AT_MOST


@pytest.mark.security("T-26")
def test_an_id_that_was_unknown_a_moment_ago_works_once_it_exists(kw: Keywright) -> None:
    """Verifying an id before it exists does not hide the key that is then made with it, in another process too."""
    key = make(kw)
    with kw.installation.database.read() as connection:
        rows = {t: sql(connection, f"SELECT * FROM {t} WHERE {c} = ?", key.key.id).all()
                for t, c in (("keys", "id"), ("secrets", "key_id"))}  # fmt: skip
    kw.keys.delete(key.key.id)
    kw.installation.clock.advance(days=31)  # type: ignore[attr-defined]
    assert kw.keys.purge() == 1

    with second(kw) as other:
        for each in (kw, other):
            assert each.verify(bearer(key), **EVERY).reason == "unknown"
        with kw.keys.change() as change:
            for table, found in rows.items():
                for row in found:
                    sql(change.tx, f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", *row)
            change.announce("key", key.key.id)
        for each in (kw, other):
            assert each.verify(bearer(key), **EVERY).code == "ok"


# ------------------------------------------------------------------------------------ what was proven, at random


WALKS = range(40) if os.environ.get("KEYWRIGHT_PROOF") else range(3)


def _spellings_of(spelled: Issued) -> list[dict[str, str]]:
    """A credential in both spellings, and with the check characters of each at the end of the other."""
    token, secret = spelled.credential.token.reveal(), spelled.credential.secret
    assert secret is not None
    pair = secret.reveal()
    return [
        *({"X-Token": one} for one in (token, token[:-6] + pair[-6:])),
        *({"X-API-KEY": spelled.key.id, "X-API-SECRET": one} for one in (pair, pair[:-6] + token[-6:])),
    ]


class Walk:
    """Keys of globex, to which anything happens in any order."""

    def __init__(self, kw: Keywright, clock: Clock, seed: int) -> None:
        self.kw, self.clock, self.chance = kw, clock, random.Random(seed)
        self.made: list[Issued] = []
        self.replan()

    def replan(self) -> None:
        """Give the plan another limit, one that is never reached."""
        self.kw.keyspaces.apply(EVERY_SOURCE.replace("5/day", f"{self.chance.randint(5, 9)}0000/day"))

    def step(self) -> None:
        """Do something. What makes no sense just now is no step."""
        key_id = self.chance.choice(self.made).key.id if self.made else ""
        keys, accounts = self.kw.keys, self.kw.accounts
        verbs: list[Callable[[], object]] = [
            lambda: self.made.append(make(self.kw, plan=self.chance.choice([None, "small"]))),
            lambda: self.made.append(
                keys.rotate(
                    key_id,
                    grace_seconds=self.chance.choice([0, 60]),
                    start=self.chance.choice(["now", "first_use"]),
                    force=self.chance.random() < 0.3,
                )
            ),
            lambda: keys.finish(key_id),
            lambda: keys.cancel(key_id),
            lambda: keys.disable(key_id, for_seconds=self.chance.choice([None, 30])),
            lambda: keys.enable(key_id),
            lambda: keys.edit(key_id, access=self.chance.choice(["all", "read_only"])),
            lambda: keys.edit(key_id, expires_at=self.chance.choice([None, self.clock() + 90 * SECOND])),
            lambda: self.chance.random() < 0.3 and keys.delete(key_id),
            lambda: self.chance.random() < 0.3 and keys.invalidate(key_id),
            lambda: accounts.suspend("globex"),
            lambda: accounts.activate("globex"),
            self.replan,
            lambda: self.clock.advance(seconds=self.chance.choice([1, 31, 61])),
        ]
        with suppress(KeywrightError):
            self.chance.choice(verbs)()

    def presented(self) -> dict[str, str]:
        """A credential that there is, or nearly."""
        return self.chance.choice(_spellings_of(self.chance.choice(self.made)))


@pytest.mark.parametrize("seed", WALKS)
def test_what_is_remembered_of_proofs_changes_no_verdict(kw: Keywright, clock: Clock, seed: int) -> None:
    """Whatever happens to keys, a process that knows what proved them says what one says that proves anew, and holds no more.

    One that has a newer entry of the installation's secret, and moves keys to it meanwhile, says the same.
    """
    older = (
        kw.installation.database.secret_file.read_text().strip()
        if kw.installation.database.is_sqlite
        else SECRET
    )
    newer = {"secret": f"{older if ':' in older else f'1:{older}'},2:{'a7' * 32}"}
    walk = Walk(kw, clock, seed)
    with again(kw, clock=clock, **newer) as quick, again(kw, clock=clock, **newer) as plain:
        cache = quick.installation.cache
        plain.installation.cache.proven = lambda _proof: None
        cache._capacity = plain.installation.cache._capacity = 4
        for _ in range(120):
            walk.step()
            for headers in [walk.presented() for _ in range(4) if walk.made]:
                both = [
                    one.verify(headers, **EVERY, method="GET")
                    for one in walk.chance.sample([quick, plain], 2)
                ]
                assert len({(one.code, one.reason, one.secret, one.key and one.key.id) for one in both}) == 1
            held = {
                proof: entry.record
                for entry in cache._entries.values()
                for proof in (entry.as_token, entry.as_pair)
                if proof is not None
            }
            assert held == cache._proofs
            assert all(held[proof] is record for proof, record in cache._proofs.items())


# ------------------------------------------------------------------------------------------------ the fill race


@pytest.mark.security("T-28", "R-39")
def test_a_slow_reader_cannot_put_back_what_a_change_has_evicted(kw: Keywright) -> None:
    """A record that was read before a change was applied does not enter the cache afterwards."""
    key = make(kw)
    cache, key_id = Cache(10), key.key.id.encode()
    applied = cache.applied
    record = kw.installation.lookup.find(key_id)
    assert record is not None

    kw.keys.invalidate(key.key.id)
    cache.apply(kw.installation.lookup.changes(applied))
    cache.put(record, applied)
    assert cache.get(key.key.id) is None

    cache.put_absent(key_id, applied, 0)
    assert not cache.is_absent(key_id, 1)
    fresh = kw.installation.lookup.find(key_id)
    assert fresh is not None
    cache.put(fresh, cache.applied)
    assert cache.get(key.key.id) is not None


@pytest.mark.security("T-28", "R-39")
@pytest.mark.parametrize("what", ["invalidate", "disable", "access", "suspend", "plan"])
def test_a_change_between_reading_and_keeping_is_obeyed(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A verification that has read a key, and is overtaken by a change that another thread applies, leaves nothing stale."""
    key, bystander = make(kw, plan="small"), make(kw)
    changes: dict[str, tuple[Callable[[], Any], str]] = {
        "invalidate": (lambda: kw.keys.invalidate(key.key.id), "invalidated"),
        "disable": (lambda: kw.keys.disable(key.key.id), "disabled"),
        "access": (lambda: kw.keys.edit(key.key.id, access="read_only"), "insufficient_scope"),
        "suspend": (lambda: kw.accounts.suspend("globex"), "account_suspended"),
        "plan": (lambda: kw.keyspaces.apply(EVERY_SOURCE.replace("5/day", "1/day")), "quota_exhausted"),
    }
    change, code = changes[what]
    once = iter([True])
    engine = kw.installation.engine
    with_plan = engine._with_plan

    def overtaken(record: KeyRecord, at_hand: AtHand | None) -> KeyRecord:
        if record.id == key.key.id and next(once, False):
            built = with_plan(record, at_hand)
            change()
            other = threading.Thread(target=kw.verify, args=(bearer(bystander),), kwargs=EVERY)
            other.start()
            other.join()
            return built
        return with_plan(record, at_hand)

    monkeypatch.setattr(engine, "_with_plan", overtaken)
    kw.verify(bearer(bystander), **EVERY)
    assert kw.verify(bearer(key), **EVERY).code == "ok"

    assert kw.verify(bearer(key), **EVERY).code == code


@pytest.mark.security("T-28")
def test_a_plan_that_changes_while_a_key_is_read_leaves_no_old_limits(
    kw: Keywright, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record read after a keyspace's change, joined to the definition from before it, is not kept."""
    key, bystander = make(kw, plan="small"), make(kw)
    kw.verify(bearer(bystander), **EVERY)
    engine, lookup = kw.installation.engine, kw.installation.lookup
    find, with_plan = lookup.find, engine._with_plan
    stages = iter(["find", "keep"])

    def find_late(key_id: bytes) -> KeyRecord | None:
        if key_id == key.key.id.encode() and next(stages, "") == "find":
            kw.keyspaces.apply(EVERY_SOURCE.replace("5/day", "1/day"))  # committed, and not yet applied here
        return find(key_id)

    def overtaken(record: KeyRecord, at_hand: AtHand | None) -> KeyRecord:
        built = with_plan(record, at_hand)
        if record.id == key.key.id and next(stages, "") == "keep":
            other = threading.Thread(target=kw.verify, args=(bearer(bystander),), kwargs=EVERY)
            other.start()
            other.join()
        return built

    monkeypatch.setattr(lookup, "find", find_late)
    monkeypatch.setattr(engine, "_with_plan", overtaken)

    assert kw.verify(bearer(key), **EVERY).code == "ok"
    assert kw.verify(bearer(key), **EVERY).code == "quota_exhausted"


# ---------------------------------------------------------------------------------------------- other processes


def expire(kw: Keywright, key: str) -> None:
    """Give a key an end in a moment, and be done when it has come."""
    moment = 20_000  # microseconds
    while True:
        at = time.time_ns() // 1000 + moment
        try:
            kw.keys.edit(key, expires_at=at)
            break
        except Invalid:  # on a busy machine the moment may have passed before the edit was looked at
            moment *= 2
    while time.time_ns() // 1000 < at + 2_000:  # two processes' clocks agree to a millisecond
        pass


CHANGES: dict[str, tuple[str, Callable[[Keywright, str], Any]]] = {
    "invalidate": ("invalidated", lambda kw, key: kw.keys.invalidate(key)),
    "delete": ("invalid", lambda kw, key: kw.keys.delete(key)),
    "disable": ("disabled", lambda kw, key: kw.keys.disable(key)),
    "access": ("insufficient_scope", lambda kw, key: kw.keys.edit(key, access="read_only")),
    "finish": ("rotated", lambda kw, key: kw.keys.finish(key)),
    "suspend": ("account_suspended", lambda kw, key: kw.accounts.suspend("globex")),
    "expire": ("expired", expire),
}


@pytest.mark.requirement("X-10", "F-28", "P-20", "B-10")
@pytest.mark.security("T-27", "R-05")
@pytest.mark.full("five hundred rounds")
def test_no_success_begins_after_a_change_was_answered(kw: Keywright) -> None:
    """Two processes verify a key in tight loops, from memory, while a third ends it in seven ways: not one late success."""
    url = kw.installation.database.url
    kw.close()
    late, asked, seen = [], 0, 0
    with again(kw, clock=process_clock) as own, Child("hammer", url) as one, Child("hammer", url) as two:
        for n in range(ROUNDS):
            what = list(CHANGES)[n % len(CHANGES)]
            code, change = CHANGES[what]
            key = make(own)
            if what == "finish":
                own.keys.rotate(key.key.id, grace_seconds=3600)
            for child in (one, two):
                child.send(headers=bearer(key), scopes=["things:write"])
            assert [one.hear(), two.hear()] == [{"warm": True}] * 2
            change(own, key.key.id)
            answered = time.monotonic_ns()
            for child in (one, two):
                said = child.hear()
                # a key that is given an end goes on for a moment, on a record that was read once more
                asked += max(said["statements"] - (2 if what == "expire" else 0), 0)
                seen += said["successes"]
                if said["last"] >= answered or said["late"] or said["code"] != code:
                    late.append((n, what, said, answered))
            if what == "suspend":
                own.accounts.activate("globex")

    assert late == []
    assert seen >= 2 * 3 * ROUNDS
    assert asked * 1000 < seen  # from memory: only a log that is folded makes a worker look, and find nothing


@pytest.mark.requirement("X-10")
def test_a_change_is_obeyed_by_another_opening_at_once(kw: Keywright) -> None:
    """Access, networks, limits, plan, expiry, state, rotation and account: each edit holds at the next call elsewhere."""
    key = make(kw)
    verbs: list[tuple[Callable[[], Any], str]] = [
        (lambda: kw.keys.edit(key.key.id, access="read_only"), "insufficient_scope"),
        (lambda: kw.keys.edit(key.key.id, access="all"), "ok"),
        (lambda: kw.keys.edit(key.key.id, allowed_ips=["10.0.0.0/8"]), "ip_not_allowed"),
        (lambda: kw.keys.edit(key.key.id, allowed_ips=[]), "ok"),
        (lambda: kw.keys.edit(key.key.id, limits=["0/day"]), "quota_exhausted"),
        (lambda: kw.keys.edit(key.key.id, limits=[]), "ok"),
        (lambda: kw.accounts.limit("globex", ["rate:0/1m"]), "rate_limited"),
        (lambda: kw.accounts.limit("globex", []), "ok"),
        (lambda: kw.keys.disable(key.key.id), "disabled"),
        (lambda: kw.keys.enable(key.key.id), "ok"),
        (lambda: kw.accounts.suspend("globex"), "account_suspended"),
        (lambda: kw.accounts.activate("globex"), "ok"),
        (lambda: kw.keys.rotate(key.key.id), "rotated"),
        (lambda: kw.keys.invalidate(key.key.id), "invalidated"),
    ]
    with second(kw) as other:
        assert other.verify(bearer(key), **EVERY, method="POST").code == "ok"
        for verb, code in verbs:
            verb()
            assert other.verify(bearer(key), **EVERY, method="POST", ip="192.0.2.1").code == code


@pytest.mark.security("T-29", "R-39")
def test_verifying_never_writes_a_key_back(kw: Keywright) -> None:
    """A key that is disabled amid verifications with limits and metering in other threads stays disabled."""
    key = make(kw, limits=["1000000/month"])
    kw.keys.rotate(key.key.id, start="first_use")
    started, codes = threading.Barrier(5), []

    def hammer() -> None:
        started.wait()
        codes.extend(kw.verify(bearer(key), **EVERY, ip="192.0.2.1").code for _ in range(VERIFICATIONS // 4))

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    kw.keys.disable(key.key.id)
    for thread in threads:
        thread.join()
    kw.installation.meter.flush()

    assert set(codes) <= {"ok", "disabled"}
    assert len(codes) == VERIFICATIONS
    assert kw.keys.get(key.key.id).state == "disabled"
    assert kw.verify(bearer(key), **EVERY).code == "disabled"


# --------------------------------------------------------------------------------------------- threads and forks


def open_files() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.sqlite_only("on PostgreSQL threads share connections")
def test_a_thread_that_ends_leaves_no_connection(kw: Keywright) -> None:
    """A hundred threads that verify one after the other leave no file open behind them."""
    key = make(kw)
    kw.verify(bearer(key), **EVERY)

    def in_thread() -> None:
        thread = threading.Thread(target=kw.verify, args=(bearer(key),), kwargs=EVERY)
        thread.start()
        thread.join()

    in_thread()
    before = open_files()
    for _ in range(100):
        in_thread()

    assert open_files() <= before + 3


def forked(work: Callable[[], list[str]]) -> list[str]:
    """What ``work`` returns in a forked child."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answers = work()
            leave()  # as at the end of any program
            os.write(writer, ",".join(answers).encode())
        finally:
            os._exit(0)
    os.close(writer)
    said = b""
    while part := os.read(reader, 4096):
        said += part
    os.close(reader)
    os.waitpid(pid, 0)
    return said.decode().split(",")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_installation_opened_before_a_fork_works_in_every_child(kw: Keywright) -> None:
    """Parent and children verify, spend and change after a fork, and each sees at once what another has changed."""
    key, spare = make(kw, limits=["100/day"]), make(kw)
    assert kw.verify(bearer(key), **EVERY).code == "ok"

    def child() -> list[str]:
        codes = [kw.verify(bearer(k), **EVERY).code for k in (key, spare)]
        kw.keys.disable(spare.key.id)
        codes.append(kw.verify(bearer(spare), **EVERY).code)
        kw.installation.meter.flush()
        return codes

    assert forked(child) == ["ok", "ok", "disabled"]
    assert kw.verify(bearer(spare), **EVERY).code == "disabled"
    kw.keys.disable(key.key.id)
    assert forked(lambda: [kw.verify(bearer(key), **EVERY).code]) == ["disabled"]
    assert kw.verify(bearer(key), **EVERY).code == "disabled"
    kw.keys.enable(key.key.id)
    assert forked(lambda: [str(kw.verify(bearer(key), **EVERY).limits[0].remaining)]) == ["97"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_amid_busy_threads_inherits_no_lock_and_no_connection(kw: Keywright) -> None:
    """A process that forks while its threads verify, spend, count and write has children that can do all of it."""
    key = make(kw, limits=["1000000/day"])
    stop = threading.Event()

    def busy(work: Callable[[], object]) -> threading.Thread:
        def loop() -> None:
            while not stop.is_set():
                work()

        thread = threading.Thread(target=loop)
        thread.start()
        return thread

    threads = [busy(lambda: kw.verify(bearer(key), **EVERY)) for _ in range(2)]
    threads += [busy(lambda: make(kw)), busy(kw.installation.meter.flush)]
    try:
        for _ in range(12):

            def child() -> list[str]:
                made: Issued = make(kw)
                codes = [kw.verify(bearer(k), **EVERY).code for k in (key, made)]
                return [*codes, str(kw.installation.meter.flush())]

            assert forked(child) == ["ok", "ok", "True"]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert kw.verify(bearer(key), **EVERY).code == "ok"
    assert kw.installation.trail.verify() is None


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_outlives_its_parents_connections(kw: Keywright) -> None:
    """A child has locks and connections in its own right: the parent may close and others open and close beside it."""
    key = make(kw)
    kw.verify(bearer(key), **EVERY)
    to_child, from_parent = os.pipe()

    def child() -> list[str]:
        codes = [kw.verify(bearer(key), **EVERY).code]
        os.read(to_child, 1)
        codes.append(kw.verify(bearer(key), **EVERY).code)
        kw.keys.enable(key.key.id)
        return [*codes, kw.verify(bearer(key), **EVERY).code]

    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, ",".join(child()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    kw.close()
    for _ in range(3):
        with again(kw) as other:
            other.keys.disable(key.key.id)
    os.write(from_parent, b"!")
    said = os.read(reader, 100).decode()
    os.waitpid(pid, 0)
    for descriptor in (reader, to_child, from_parent):
        os.close(descriptor)

    assert said == "ok,disabled,ok"


@pytest.mark.security("T-25", "R-25")
@pytest.mark.full("a million unknown tokens")
def test_a_flood_of_unknown_tokens_costs_no_memory(kw: Keywright) -> None:
    """A flood of well-formed unknown tokens takes less than 50 MB, and 10,000 good keys stay known through it."""
    import psutil

    from keywright.credential import spell_token

    many = 1_000_000 if os.environ.get("KEYWRIGHT_PROOF") else 20_000
    good = [bearer(make(kw)) for _ in range(10_000 if many == 1_000_000 else 100)]
    for headers in good:
        assert kw.verify(headers, **EVERY).code == "ok"
    before, process = kw.installation.lookup.statements, psutil.Process()
    resident = process.memory_info().rss

    for n in range(many):
        token = spell_token(f"every_live_k{n:015}", "A" * 32)
        assert kw.verify({"Authorization": f"Bearer {token}"}, **EVERY).reason == "unknown"

    assert process.memory_info().rss - resident < 50_000_000
    asked = kw.installation.lookup.statements - before
    for headers in good:
        assert kw.verify(headers, **EVERY).code == "ok"
    missed = kw.installation.lookup.statements - before - asked
    assert missed <= len(good) // 100
