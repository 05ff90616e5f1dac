"""PostgreSQL: what is only there, and promise 6 across a network that fails."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from conftest import SOURCES, again, bearer, make, sql
from keywright import CannotStart, Keywright, SchemaTrouble, SecretTrouble, Unavailable, profiles
from keywright.credential import new_id, new_secret, spell_token
from keywright.installation import open_installation
from keywright.store import migrate
from keywright.store.db import Database
from keywright.store.postgres_lookup import PostgresLookup
from keywright.testing import Clock
from postgres import PATIENCE, SECRET, Proxy, Server
from processes import Served, answers, run

EVERY = {"keyspace": "every", "environment": "production"}


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    again_in = threading.Event()
    for _ in range(PATIENCE * 50):
        if holds():
            return
        again_in.wait(0.02)
    raise AssertionError("it never came to hold")


@pytest.fixture
def empty(server: Server) -> Iterator[str]:
    """A database with nothing in it."""
    url = server.make()
    yield url
    server.drop(url)


@pytest.fixture
def proxy(postgres_kw: Keywright) -> Iterator[Proxy]:
    """A network between a program and the installation of ``postgres_kw``."""
    with Proxy(postgres_kw.installation.database.url) as proxy:
        yield proxy


@pytest.fixture
def far(proxy: Proxy, clock: Clock) -> Iterator[Keywright]:
    """The installation of ``postgres_kw``, across that network."""
    with Keywright(proxy.url, secret=SECRET, clock=clock) as opened:
        yield opened
        proxy.mend()


# ------------------------------------------------------------------------------------------------------- opening


def test_only_who_may_brings_the_schema(empty: str) -> None:
    """A library or a verb of the command refuses an empty database in one line and leaves it so; ``serve`` makes it ready."""
    with pytest.raises(SchemaTrouble, match="keywright migrate") as refusal:
        Keywright(empty, secret=SECRET)
    assert "\n" not in str(refusal.value)
    database = Database(empty)
    assert set(migrate.versions(database).values()) == {None}
    database.close()

    open_installation(empty, secret=SECRET, may_migrate=True).close()
    with Keywright(empty, secret=SECRET) as kw:
        kw.keyspaces.apply(SOURCES[-1])
        kw.accounts.create("globex")
        assert kw.verify(bearer(make(kw)), **EVERY).code == "ok"


def test_two_may_migrate_at_once(empty: str) -> None:
    """Several that bring one new database up to date at the same time wait for each other and all succeed."""
    trouble: list[BaseException] = []
    start = threading.Barrier(4)

    def bring() -> None:
        start.wait()
        try:
            open_installation(empty, secret=SECRET, may_migrate=True).close()
        except BaseException as raised:
            trouble.append(raised)

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert trouble == []
    with Keywright(empty, secret=SECRET) as kw:
        assert kw.installation.trail.verify() is None


@pytest.mark.security("R-30")
def test_a_newer_schema_is_refused(postgres_kw: Keywright) -> None:
    """A database that a newer version has migrated is refused in one line, by whoever may migrate too."""
    with postgres_kw.installation.database.write() as tx:
        tx.exec_driver_sql("UPDATE schema_spend SET version_num = '9999'")

    with pytest.raises(SchemaTrouble, match="made by a newer Keywright") as refusal:
        open_installation(postgres_kw.installation.database.url, secret=SECRET, may_migrate=True)
    assert "\n" not in str(refusal.value)


def test_the_secret_has_to_be_given(postgres_kw: Keywright) -> None:
    """Nothing is opened on PostgreSQL without a secret, or with another's."""
    url = postgres_kw.installation.database.url
    with pytest.raises(SecretTrouble, match="KEYWRIGHT_SECRET"):
        Keywright(url)
    with pytest.raises(SecretTrouble, match="made with"):
        Keywright(url, secret="1:" + "3c" * 32)


@pytest.mark.security("R-14")
def test_an_unreachable_database_is_one_line_and_nothing_listens(
    tmp_path: Path, postgres_kw: Keywright, proxy: Proxy
) -> None:
    """Where PostgreSQL cannot be reached ``serve`` ends with code 3 and one line without the password; no port answers."""
    proxy.cut()
    url = proxy.url.replace("postgres@", "postgres:hunter2@")
    port = "18731"

    ended = run("serve", "--port", port, "--database", url, cwd=tmp_path, KEYWRIGHT_SECRET=SECRET)

    assert ended.returncode == 3
    assert len(ended.stderr.splitlines()) == 1
    assert "hunter2" not in ended.stderr + ended.stdout
    assert not answers(int(port))


@pytest.mark.parametrize(
    "url", ["postgresql://127.0.0.1:x/k", "postgresql://127.0.0.1:1/k", "postgresql://[/k"]
)
def test_an_address_that_is_none_is_refused_in_one_line(url: str) -> None:
    """Addresses that cannot be read, or where nobody is, are told in one line."""
    with pytest.raises(CannotStart) as refusal:
        Keywright(url, secret=SECRET)
    assert "\n" not in str(refusal.value)


def test_serve_brings_a_new_database_to_work(empty: str, tmp_path: Path) -> None:
    """On an empty database ``serve`` makes the schema, and every hot door answers; an invalidation holds at once."""
    forwarded = {"x-forwarded-method": "GET", "x-forwarded-uri": "/things"}
    with Served(empty, tmp_path, KEYWRIGHT_SECRET=SECRET) as served, Keywright(empty, secret=SECRET) as kw:
        kw.keyspaces.apply(SOURCES[-1])
        kw.accounts.create("globex")
        key = make(kw)
        managing = bearer(kw.keys.create_management(name="ops", scopes=["keys:read"]))

        def status(path: str, headers: dict[str, str]) -> int:
            return httpx.get(served.url + path, headers=headers).status_code

        assert [status(path, {}) for path in ("/livez", "/readyz", "/authz/forward/nowhere")] == [
            200,
            200,
            404,
        ]
        assert status("/k/every.production/whoami", bearer(key)) == 200
        assert status("/authz/forward/shop", bearer(key) | forwarded) == 200
        assert status("/v1/keys", managing) == 200
        kw.keys.invalidate(key.key.id)
        assert status("/authz/forward/every.production", bearer(key) | forwarded) == 401


# ------------------------------------------------------------------------------------------------ the network fails


@pytest.fixture
def cautious(proxy: Proxy, clock: Clock) -> Iterator[Keywright]:
    """The installation of ``postgres_kw`` across that network, which serves nothing without the store."""
    with Keywright(proxy.url, secret=SECRET, clock=clock, on_store_loss="refuse") as opened:
        yield opened
        proxy.mend()


@pytest.mark.security("R-14", "T-63")
@pytest.mark.parametrize("how", ["cut", "silence"])
def test_a_cautious_worker_is_unavailable_without_the_store_and_comes_back(
    postgres_kw: Keywright, cautious: Keywright, proxy: Proxy, how: str
) -> None:
    """With ``refuse``, soon after the store is gone every key is ``unavailable`` in both colours, never stale; then all is well."""
    known, unknown = make(postgres_kw), make(postgres_kw, limits=["50/day"])
    assert cautious.verify(bearer(known), **EVERY).code == "ok"

    async def both() -> list[str]:
        verdicts = [await cautious.averify(bearer(key), **EVERY) for key in (known, unknown)]
        return [verdict.code for verdict in verdicts]

    assert asyncio.run(both()) == ["ok", "ok"]
    getattr(proxy, how)()
    eventually(lambda: cautious.verify(bearer(known), **EVERY).code == "unavailable")
    verdict = cautious.verify(bearer(known), **EVERY)
    assert (verdict.code, verdict.stale, cautious.answer(verdict).status) == ("unavailable", False, 503)
    assert "Retry-After" in dict(cautious.answer(verdict).headers)
    assert cautious.verify(bearer(unknown), **EVERY).code == "unavailable"
    assert asyncio.run(both()) == ["unavailable"] * 2
    if how == "cut":
        with pytest.raises(Unavailable):
            make(cautious)

    proxy.mend()
    eventually(lambda: cautious.verify(bearer(known), **EVERY).code == "ok")
    eventually(lambda: asyncio.run(both()) == ["ok", "ok"])
    assert cautious.keys.get(known.key.id).state == "active"


@pytest.mark.security("R-14")
def test_ended_connections_are_replaced_unseen(postgres_kw: Keywright, server: Server) -> None:
    """Where the server ends every connection, as when it restarts, the next verification and verb succeed on new ones."""
    key = make(postgres_kw, limits=["50/day"])

    async def some() -> list[str]:
        codes = []
        for _ in range(3):
            codes.append((await postgres_kw.averify(bearer(key), **EVERY)).code)
            end(postgres_kw, server)
        return codes

    for _ in range(3):
        assert postgres_kw.verify(bearer(key), **EVERY).code == "ok"
        end(postgres_kw, server)
    assert asyncio.run(some()) == ["ok"] * 3
    end(postgres_kw, server)
    assert postgres_kw.keys.invalidate(key.key.id)


def end(kw: Keywright, server: Server) -> None:
    """End every connection to an installation's database, and be done when they have gone."""
    name = kw.installation.database.url.rpartition("/")[2]
    ended = f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
    assert all(row == (True,) for row in server.run(ended))


# ---------------------------------------------------------------------------------------------------- event loops


def test_an_event_loop_shares_what_it_asks(postgres_kw: Keywright) -> None:
    """A hundred concurrent verifications of two new keys look each key up once, and answer each rightly."""
    keys = make(postgres_kw), make(postgres_kw)
    postgres_kw.keys.disable(keys[1].key.id)
    with again(postgres_kw) as kw:

        async def all_at_once() -> list[str]:
            asked = (kw.averify(bearer(keys[n % 2]), **EVERY) for n in range(100))
            return [verdict.code for verdict in await asyncio.gather(*asked)]

        codes = asyncio.run(all_at_once())
        assert Counter(codes) == {"ok": 50, "disabled": 50}
        assert kw.installation.lookup.statements <= 4  # the newest change, the keyspace, two keys


def test_keys_that_are_wanted_together_are_one_statement(postgres_kw: Keywright) -> None:
    """Two hundred keys that a loop asks for at once take a few statements, and each gets its own answer.

    Known, disabled, rotated, unknown and damaged ones among them: what is wrong with one is no other's trouble.
    """
    keys = [make(postgres_kw) for _ in range(100)]
    postgres_kw.keys.disable(keys[1].key.id)
    turned = postgres_kw.keys.rotate(keys[2].key.id, grace_seconds=3600)
    with postgres_kw.installation.database.write() as tx:
        sql(tx, "UPDATE keys SET expires_at = NULL, access = 'odd' WHERE id = ?", keys[3].key.id)
    unknown = [{"X-Token": spell_token(new_id("every", "live"), new_secret())} for _ in range(99)]
    expected = {1: "disabled", 3: "unavailable"}
    with again(postgres_kw) as kw:

        async def all_at_once() -> list[str]:
            sent = [*map(bearer, keys), *unknown, bearer(turned)]
            return [one.code for one in await asyncio.gather(*(kw.averify(h, **EVERY) for h in sent))]

        codes = asyncio.run(all_at_once())
        assert codes[:100] == [expected.get(n, "ok") for n in range(100)]
        assert codes[100:] == ["invalid"] * 99 + ["ok"]
        assert kw.installation.lookup.statements < 20


def test_who_waits_for_a_key_with_others_is_told_when_the_store_is_gone(postgres_kw: Keywright) -> None:
    """Where the one statement for many keys cannot be asked, each who waits is told, and the next is asked anew."""
    keys = [make(postgres_kw).key.id for _ in range(20)]
    lookup = PostgresLookup(postgres_kw.installation.database)
    here, lookup.conninfo = lookup.conninfo, "host=127.0.0.1 port=1"

    async def found() -> list[object]:
        asked = (lookup.afind(key_id.encode(), 0) for key_id in keys)
        return await asyncio.gather(*asked, return_exceptions=True)

    async def before_and_after() -> tuple[list[object], list[object]]:
        lost = await found()
        lookup.conninfo = here
        return lost, await found()

    lost, again = asyncio.run(before_and_after())
    lookup.close()
    assert [type(one) for one in lost] == [Unavailable] * 20
    assert [one.id for one in again] == keys  # type: ignore[attr-defined]


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
def test_who_waits_is_told_when_the_asking_is_called_off(postgres_kw: Keywright, turns: int) -> None:
    """A host that cancels tasks that it did not begin leaves nobody waiting for ever, and what comes later is asked anew."""
    keys = [make(postgres_kw).key.id for _ in range(3)]
    lookup = PostgresLookup(postgres_kw.installation.database)

    async def begun(waiting: list[asyncio.Task[object]]) -> list[asyncio.Task[object]]:
        for _ in range(1 + turns):
            await asyncio.sleep(0)
        return list(asyncio.all_tasks() - {asyncio.current_task(), *waiting})  # type: ignore[arg-type]

    async def called_off() -> None:
        for wanted in ([lookup.afind(one.encode(), 0) for one in keys], [lookup.achanges(0)]):
            waiting = [asyncio.create_task(one) for one in wanted]
            for task in await begun(waiting):
                task.cancel()
            _, hanging = await asyncio.wait(waiting, timeout=30)
            assert not hanging
        async with asyncio.timeout(30):
            found = await asyncio.gather(*(lookup.afind(one.encode(), 0) for one in keys))
            assert [one.id for one in found if one] == keys
            assert await lookup.achanges(0)

    asyncio.run(called_off())
    lookup.close()


def test_a_loop_goes_on_while_the_store_is_silent(
    postgres_kw: Keywright, far: Keywright, proxy: Proxy
) -> None:
    """An event loop that waits for a store which says nothing does its other work meanwhile."""
    key = make(postgres_kw)
    assert far.verify(bearer(key), **EVERY).code == "ok"

    other = make(postgres_kw)

    async def beside() -> tuple[str, int]:
        await far.averify(bearer(key), **EVERY)
        proxy.silence()
        asked, turns = asyncio.create_task(far.averify(bearer(other), **EVERY)), 0
        while not asked.done():
            await asyncio.sleep(0)
            turns += 1
        return (await asked).code, turns

    code, turns = asyncio.run(beside())
    assert code == "unavailable"
    assert turns > 100


def test_a_change_is_obeyed_on_an_event_loop(postgres_kw: Keywright) -> None:
    """Each verification that an event loop begins after a change was answered sees it, however many run beside it."""
    with again(postgres_kw) as other:

        async def rounds() -> list[str]:
            codes = []
            for n in range(10):
                key = make(postgres_kw, name=f"key {n}")
                busy = [asyncio.create_task(other.averify(bearer(key), **EVERY)) for _ in range(10)]
                await busy[0]
                await asyncio.to_thread(postgres_kw.keys.invalidate, key.key.id)
                codes.append((await other.averify(bearer(key), **EVERY)).code)
                await asyncio.gather(*busy)
            return codes

        assert asyncio.run(rounds()) == ["invalidated"] * 10


@pytest.mark.security("T-30")
def test_processes_never_over_grant_a_rate(postgres_kw: Keywright) -> None:
    """Openings that race for one rate, each with a writer of its own, get it together and no more."""
    key = make(postgres_kw, limits=["rate:30/1h", "1000/day"])
    codes: list[str] = []
    others = [again(postgres_kw) for _ in range(4)]

    def race(kw: Keywright) -> None:
        codes.extend(kw.verify(bearer(key), **EVERY).code for _ in range(20))

    threads = [threading.Thread(target=race, args=(kw,)) for kw in others for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for kw in others:
        kw.close()

    assert Counter(codes) == {"ok": 30, "rate_limited": 130}


@pytest.mark.requirement("X-27")
def test_the_command_works_on_postgresql(empty: str, tmp_path: Path) -> None:
    """migrate makes the schema, and then every noun of the command reads and writes what it does on SQLite."""

    def said(*arguments: str) -> str:
        ended = run(*arguments, "--database", empty, cwd=tmp_path, KEYWRIGHT_SECRET=SECRET)
        assert (ended.returncode, ended.stderr) == (0, ""), arguments
        return ended.stdout

    assert "migrated" in said("migrate")
    said("keyspaces", "create", "--profile", "default")
    said("accounts", "create", "globex")
    made = said(
        *("keys", "create", "CRM sync", "--keyspace", "default", "--account", "globex", "--json"),
        *("--environment", "production", "--access", "all", "--limit", "10/day"),
    )
    key_id = json.loads(made)["key"]["id"]
    said("keys", "edit", key_id, "--access", "read_only")
    said("keys", "rotate", key_id, "--grace", "24h", "--quiet")
    said("keys", "invalidate", key_id)

    assert key_id in said("keys", "list", "--search", "crm")
    assert "globex" in said("accounts", "list")
    assert "holds" in said("audit", "verify")
    assert "key.invalidate" in said("audit", "list")
    assert said("usage") != ""
    assert said("doctor") != ""


@pytest.mark.requirement("P-17", "P-18", "P-20")
def test_customers_manage_their_keys_on_postgresql(empty: str, tmp_path: Path) -> None:
    """Self-service, creating once, usage and the refusal log work on PostgreSQL over HTTP."""
    with Served(empty, tmp_path, KEYWRIGHT_SECRET=SECRET) as served, Keywright(empty, secret=SECRET) as kw:
        kw.keyspaces.apply(profiles.source("partna"))
        kw.accounts.create("globex")
        owner = kw.keys.create(
            keyspace="partna", account="globex", environment="production", name="Owner", access="all"
        )
        own = {"x-api-key": owner.credential.token.reveal(), "x-api-user": "globex"}
        door = f"{served.url}/k/partna.production/v4/user"
        scopes = ["usage:read", "audit:read", "keys:write"]
        managing = bearer(kw.keys.create_management(name="ops", scopes=scopes))
        body = {"keyspace": "partna", "account": "globex", "environment": "production", "name": "Once"}
        once = managing | {"Idempotency-Key": "a-creation-that-happens-once"}

        made = httpx.post(f"{door}/api-key", headers=own, json={"keyname": "Made", "scope": "G"})
        listed = httpx.get(f"{door}/api-keys", headers=own)
        refused = httpx.get(f"{door}/api-keys", headers=own | {"x-api-user": "initech"})
        created = [httpx.post(f"{served.url}/v1/keys", headers=once, json=body).json() for _ in range(2)]

        assert (made.status_code, listed.status_code, refused.status_code) == (200, 200, 401)
        assert created[0]["key"]["id"] == created[1]["key"]["id"]
        assert created[1]["credential"] is None
        for path in ("/v1/usage?by=total&group=code", "/v1/refusals", "/v1/audit"):
            assert httpx.get(served.url + path, headers=managing).status_code == 200, path
