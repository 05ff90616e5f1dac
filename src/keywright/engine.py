"""THE HOT PATH: read the credential, look the key up, decide, spend, count.

    schemes.Reader.read      where is the credential, and is there exactly one?
    credential.mac           the MAC, before anything is looked up
    cache, store.lookup      whose is it?
    policy.prove, .decide    is it proven, and may it do this?
    limits, blocks           does every limit give?
    meter.count              it happened

``verify`` and ``averify`` are the same but for one step, the spending, which may have to wait for the disk. Everything
else is done inline: on SQLite a look-up costs less than handing it to somebody.

On PostgreSQL an event loop waits for look-ups too. It decides from memory; where something is not there, that is
``Missing``: it is fetched, and decided is anew, with what was fetched ``AtHand``.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Final, Literal, Protocol, TypeVar

import msgspec

from keywright import credential, limits, policy, propagation
from keywright.answers import NOWHERE, RETRY_WHEN_UNAVAILABLE, Answer
from keywright.blocks import Blocks, Spent
from keywright.cache import Cache, Compiled, Entry
from keywright.credential import Spelled
from keywright.errors import Invalid, NotFound, Unavailable
from keywright.freshness import Freshness, FreshnessByLease
from keywright.keyring import Keyring
from keywright.meter import Meter
from keywright.model import MANAGEMENT, Actor, Ask, KeyRecord, Propagation, SecretRecord, Verdict
from keywright.roll import Roll
from keywright.schemes import IN_URL, Presented, Unproven, id_in
from keywright.store import audit, changes, keys
from keywright.store.db import Database
from keywright.store.lookup import Found, Lookup
from keywright.throttle import Throttle

Given = list[tuple[bytes, bytes]] | Presented | Unproven

_CODE_OF_KIND: Final = {"quota": "quota_exhausted", "credits": "quota_exhausted", "rate": "rate_limited"}


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Missing(Exception):
    """Something that a verification needs is not in memory, and an event loop may not wait for it here."""

    def __init__(self, kind: Literal["key", "imported", "keyspace", "gate"], ref: bytes | str) -> None:
        self.kind = kind
        self.ref = ref


class AtHand:
    """What was fetched for one request from a store across a network, each with the newest change acted upon before."""

    __slots__ = ("gates", "keys", "keyspaces", "later")

    def __init__(self) -> None:
        self.keys: dict[bytes, tuple[int, KeyRecord | None]] = {}
        self.keyspaces: dict[str, Found | None] = {}
        self.gates: dict[str, tuple[int, str | None]] = {}
        #: what is to be done before the verdict is given
        self.later: Callable[[], None] | None = None


class Find(Protocol[T_co]):
    """Finds something in memory, or raises ``Missing``."""

    def __call__(self, *, stale: bool, at_hand: AtHand | None = None) -> T_co: ...


class Engine:
    """Answers verifications. One per process and database; safe to use from any thread or event loop."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        lookup: Lookup,
        cache: Cache,
        freshness: Freshness | FreshnessByLease,
        meter: Meter,
        blocks: Blocks,
        throttle: Throttle,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._peppers = {n: credential.Pepper(pepper) for n, pepper in keyring.peppers.items()}
        self._current = keyring.current
        self._mac = self._peppers[keyring.current].mac
        self._lookup = lookup
        self._cache = cache
        self._freshness = freshness
        self._asking = freshness if isinstance(freshness, FreshnessByLease) else None
        #: whether the store lies across a network, so that an event loop must await it
        self.far = self._asking is not None
        self._meter = meter
        self._blocks = blocks
        self._throttle = throttle
        self._clerk: ThreadPoolExecutor | None = None
        self._moving: set[tuple[str, int]] = set()

    # ------------------------------------------------------------------------------------------------ the two colours

    def verify(
        self, ask: Ask, given: Given, now: int, *, url: str | bytes | None = None, request_id: str = ""
    ) -> Verdict:
        """Say whether a request may proceed. ``given`` is its headers, or a credential already taken out of them.

        Raises ``NotFound`` or ``Invalid`` where the ask itself names no keyspace or environment; a refusal is a value.
        """
        verdict = self.decide(ask, given, now, url, request_id)
        if verdict.code == "ok" and ask.metered and verdict.key is not None and verdict.key.limits:
            verdict = self._settle(verdict, self._spend(verdict.key, ask.cost, now))
        self.count(ask, verdict, now)
        return verdict

    async def averify(
        self,
        ask: Ask,
        given: Given,
        now: int,
        *,
        url: str | bytes | None = None,
        request_id: str = "",
        stale: bool | None = None,
    ) -> Verdict:
        """``verify`` for an event loop: it awaits where ``verify`` would wait for the disk.

        ``stale`` is what ``fresh`` said earlier in the same request, where a door had to ask it before.
        """
        if self._asking is None:
            verdict = self.decide(ask, given, now, url, request_id, stale)
        else:
            verdict = await self.adecide(ask, given, now, url, request_id, stale)
        if verdict.code == "ok" and ask.metered and verdict.key is not None and verdict.key.limits:
            verdict = await self.acharge(ask, verdict, now)
        self.count(ask, verdict, now)
        return verdict

    def at_once(
        self, ask: Ask, given: Given, now: int, url: str | bytes | None, request_id: str, stale: bool
    ) -> Verdict | None:
        """``verify`` after ``fresh_at_once``, where it need not wait; ``None``, and nothing is done, where it must.

        The cost was checked by whoever asks.
        """
        verdict = self.decide_at_once(ask, given, now, url, request_id, stale)
        if verdict is None:
            return None
        if verdict.code == "ok" and ask.metered and verdict.key is not None and verdict.key.limits:
            spent = self._blocks.at_once(verdict.key, ask.cost, now)
            if spent is None:
                return None
            verdict = self._settle(verdict, spent)
        self.count(ask, verdict, now)
        return verdict

    # --------------------------------------------------------------------------------------------------- up to a yes

    def decide(
        self,
        ask: Ask,
        given: Given,
        now: int,
        url: str | bytes | None,
        request_id: str,
        stale: bool | None = None,
        at_hand: AtHand | None = None,
    ) -> Verdict:
        """The verdict before anything is spent or counted. What is ``ok`` here may still lack what its limits ask."""
        try:
            if stale is None:
                stale = self._freshness.check(now)
            compiled = self._cache.keyspace(ask.keyspace) or self.compiled(
                ask.keyspace, stale=stale, at_hand=at_hand
            )
            environment = ask.environment
            if environment is None or environment not in compiled.keyspace.environments:
                environment = environment_of(ask, compiled)
            reader = compiled.reader
            presented = reader.read(given, url) if isinstance(given, list) else reader.beside(given, url)
            if isinstance(presented, Unproven):
                named = self._in_url(url, now, stale, at_hand) if presented is IN_URL and url else None
                return Verdict(presented.code, presented.reason, ask.keyspace, now, request_id, named=named)
            record, secret, reason, mac = self._identify(presented, now, stale, at_hand)
        except Unavailable as trouble:
            return unavailable(ask, now, request_id, str(trouble))
        if record is None or secret is None:
            return Verdict(
                "invalid",
                reason,
                ask.keyspace,
                now,
                request_id,
                scheme=presented.scheme,
                named=record,
                fingerprint=mac[:6].hex(),
            )
        code, reason, known = policy.decide(
            record, secret, presented.username, ask, compiled.keyspace, environment, now
        )
        if code == "ok" and (secret.starts_rotation or secret.pepper != self._current):
            self._used(record, secret, presented, ask, now, at_hand)
        if presented.browser and ask.recorded and ask.keyspace != MANAGEMENT:
            self._meter.note("browser", record, ask.ip, now)
        key = record if known else None
        return Verdict(
            code,
            reason,
            ask.keyspace,
            now,
            request_id,
            key,
            presented.scheme,
            (),
            None,
            stale,
            ask.scopes,
            secret.n,
            None if known else record,
        )

    def decide_at_once(
        self, ask: Ask, given: Given, now: int, url: str | bytes | None, request_id: str, stale: bool
    ) -> Verdict | None:
        """``decide``, where an event loop need not wait; ``None`` where it must."""
        if not self.far:
            return self.decide(ask, given, now, url, request_id, stale)
        at_hand = AtHand()
        try:
            verdict = self.decide(ask, given, now, url, request_id, stale, at_hand)
        except Missing:
            return None
        return verdict if at_hand.later is None else None

    async def adecide(
        self,
        ask: Ask,
        given: Given,
        now: int,
        url: str | bytes | None,
        request_id: str,
        stale: bool | None,
    ) -> Verdict:
        """``decide``, where an event loop must await the store."""
        at_hand = AtHand()
        try:
            if stale is None:
                stale = await self.afresh(now)
            decide = partial(self.decide, ask, given, now, url, request_id, stale, at_hand)
            verdict = await self._with(at_hand, decide)
        except Unavailable as trouble:
            return unavailable(ask, now, request_id, str(trouble))
        if at_hand.later is not None:
            await asyncio.to_thread(at_hand.later)
        return verdict

    async def _with(self, at_hand: AtHand, work: Callable[[], T]) -> T:
        """Do what needs nothing but memory, and fetch what is not there until it is."""
        while True:
            try:
                return work()
            except Missing as missing:
                await self._fetch(missing, at_hand)

    async def _fetch(self, missing: Missing, at_hand: AtHand) -> None:
        assert self._asking is not None
        far, applied = self._asking.lookup, self._cache.applied
        if isinstance(missing.ref, bytes):
            find = far.afind if missing.kind == "key" else far.afind_imported
            at_hand.keys[missing.ref] = applied, await find(missing.ref, applied)
        elif missing.kind == "keyspace":
            at_hand.keyspaces[missing.ref] = await far.akeyspace(missing.ref, applied)
        else:
            at_hand.gates[missing.ref] = applied, await far.akeyspace_with_gate(missing.ref, applied)

    def _identify(
        self, presented: Presented, now: int, stale: bool, at_hand: AtHand | None
    ) -> tuple[KeyRecord | None, SecretRecord | None, str, bytes]:
        """Find the key and the secret that was presented; without them, the reason; and the MAC under the current pepper."""
        spelled = presented.spelled
        if spelled.spelling == "imported":
            return self._identify_imported(spelled, now, stale, at_hand)
        mac = self._mac(spelled.id, spelled.secret)
        proof = credential.proof(spelled, mac)
        record = self._cache.proven(proof)
        if record is not None:
            return record, record.secrets[0], "", mac
        entry = self._cache.get(spelled.id.decode("ascii"))
        # Computed whoever it is: left out for an id that is remembered, the answer would come 0.9 µs sooner, and somebody
        # who measures long enough would learn which ids there are.
        well_spelled = credential.expected_check(spelled) == spelled.check
        if entry is not None:
            record = entry.record
        elif well_spelled:
            record = self._find(spelled.id, now, stale, at_hand)
        else:
            return None, None, "sample" if spelled.id.endswith(credential.SAMPLES) else "checksum", mac
        only = record is not None and len(record.secrets) == 1 and record.secrets[0].pepper == self._current
        macs = {self._current: mac} if only else self._macs(record, mac, spelled)
        secret = policy.prove(record, macs)
        if (
            secret is None and spelled.spelling == "dotted"
        ):  # whoever it is, so that unknown ids cost the same
            secret = policy.prove(
                record, self._macs_of_imported(record, credential.dotted_as_imported(spelled))
            )
        if record is None:
            return None, None, "sample" if spelled.id.endswith(credential.SAMPLES) else "unknown", mac
        if secret is None:
            self._check_peppers(record)
            return record, None, "wrong_secret", mac
        if not well_spelled:
            return record, None, "checksum", mac
        if only:
            self._cache.put_proven(spelled, proof, record)
        return record, secret, "", mac

    def _identify_imported(
        self, spelled: Spelled, now: int, stale: bool, at_hand: AtHand | None
    ) -> tuple[KeyRecord | None, SecretRecord | None, str, bytes]:
        """``_identify``, of a credential that names no key: it is found by its tag, and proven by its MAC all the same."""
        tag = self._peppers[self._current].tag(spelled)
        record = self._cache.proven(tag)
        if record is not None:
            return record, record.secrets[0], "", tag
        found, record = self._find_imported(spelled, now, stale, at_hand)
        secret = policy.prove(record, self._macs_of_imported(record, spelled))
        if record is None:
            return None, None, "unknown", tag
        if secret is None:
            self._check_peppers(record)
            return record, None, "wrong_secret", tag
        if found == tag and len(record.secrets) == 1 and secret.pepper == self._current:
            self._cache.put_proven(spelled, tag, record)
        return record, secret, "", tag

    def _find_imported(
        self, spelled: Spelled, now: int, stale: bool, at_hand: AtHand | None
    ) -> tuple[bytes, KeyRecord | None]:
        """The key that a tag leads to, and the tag: under the current pepper, or under one that it was stored with."""
        tag = b""
        for n in sorted(self._peppers, reverse=True):
            tag = self._peppers[n].tag(spelled)
            known = self._cache.tagged(tag)
            entry = None if known is None else self._cache.get(known)
            record = self._find(tag, now, stale, at_hand, "imported") if entry is None else entry.record
            if record is not None:
                if known is None:
                    self._cache.put_tag(tag, record)
                return tag, record
        return tag, None

    def led_to(self, spelled: Spelled, now: int) -> KeyRecord | None:
        """The key that an imported credential leads to, whether or not its MAC proves it. May raise ``Unavailable``."""
        return self._find_imported(spelled, now, self.fresh(now), None)[1]

    def _macs_of_imported(self, record: KeyRecord | None, spelled: Spelled) -> dict[int, bytes]:
        """An imported credential under each pepper that a secret of the key was stored with; of nobody's, the current."""
        if record is None:
            return {self._current: self._peppers[self._current].mac_of_imported(b"", spelled)}
        key_id = record.id.encode()
        peppers = {secret.pepper for secret in record.secrets} & self._peppers.keys()
        return {n: self._peppers[n].mac_of_imported(key_id, spelled) for n in peppers}

    def _check_peppers(self, record: KeyRecord) -> None:
        if any(known.pepper not in self._peppers for known in record.secrets):
            # Another process has a newer entry of the installation's secret: it may be right, we cannot tell.
            raise Unavailable(
                "a key hangs on an entry of the installation's secret that is not configured here"
            )

    def _in_url(self, url: str | bytes, now: int, stale: bool, at_hand: AtHand | None) -> KeyRecord | None:
        """The key whose credential stands in an address, for the refusal log; nothing is proven."""
        key_id = id_in(url)
        if key_id is None:
            return None
        entry = self._cache.get(key_id.decode("ascii"))
        if entry is not None:
            return entry.record
        return None if stale else self._find(key_id, now, stale, at_hand)

    def _macs(self, record: KeyRecord | None, mac: bytes, spelled: credential.Spelled) -> dict[int, bytes]:
        """What was presented, under each pepper that a secret of the key was stored with."""
        macs = {self._current: mac}
        if record is not None:
            for secret in record.secrets:
                n = secret.pepper
                if n not in macs and n in self._peppers:
                    macs[n] = self._peppers[n].mac(spelled.id, spelled.secret)
        return macs

    def _find(
        self,
        key_id: bytes,
        now: int,
        stale: bool,
        at_hand: AtHand | None,
        kind: Literal["key", "imported"] = "key",
    ) -> KeyRecord | None:
        """A key by its id, or by the tag of an imported credential: both are looked up and forgotten alike."""
        if stale:
            raise Unavailable("the store does not answer, and this key is not known by heart")
        if self._cache.is_absent(key_id, now) or self._cache.is_nobody(key_id):
            return None
        if at_hand is None:
            applied = self._cache.applied
            record = self._lookup.find(key_id) if kind == "key" else self._lookup.find_imported(key_id)
        elif key_id in at_hand.keys:
            applied, record = at_hand.keys[key_id]
        else:
            raise Missing(kind, key_id)
        if record is None:
            self._cache.put_absent(key_id, applied, now)
            return None
        if record.plan is not None:
            record = self._with_plan(record, at_hand)
        self._cache.put(record, applied)
        return record

    def _with_plan(self, record: KeyRecord, at_hand: AtHand | None) -> KeyRecord:
        assert record.plan is not None
        plan = self.compiled(record.keyspace, at_hand=at_hand).keyspace.plans.get(record.plan)
        if plan is None:
            # Without its limits the key would be unlimited: that is ours to mend, and nobody's to enjoy.
            raise Unavailable(f"the plan {record.plan!r} of a key is not defined any more")
        charges = tuple((f"key:{record.id}:plan", limit) for limit in plan.limits)
        return msgspec.structs.replace(record, limits=record.limits + charges)

    def place_of(
        self, presented: Presented, now: int, *, stale: bool, at_hand: AtHand | None = None
    ) -> tuple[str, str] | None:
        """The keyspace and environment of a credential, where it is proven; nothing is told of one that is not."""
        record, secret, _, _ = self._identify(presented, now, stale, at_hand)
        return None if record is None or secret is None else (record.keyspace, record.environment)

    def proven(self, many: Iterable[Spelled | None], now: int) -> Iterator[tuple[str, int] | None]:
        """Of each credential, where it is right: whose key it is, and the number of the secret.

        Raises ``Unavailable`` where the store does not answer, whatever the credentials are.
        """
        if self.fresh(now):
            raise Unavailable("the store does not answer")
        for spelled in many:
            yield None if spelled is None else self._proven(spelled, now)

    def _proven(self, spelled: Spelled, now: int) -> tuple[str, int] | None:
        try:
            record, secret, _, _ = self._identify(Presented(spelled.spelling, spelled), now, False, None)
        except Unavailable:
            if not self._remembers(spelled):
                raise
            return None  # an entry of the installation's secret is not configured here: nobody can tell
        return None if record is None or secret is None else (record.id, secret.n)

    def _remembers(self, spelled: Spelled) -> bool:
        if spelled.spelling != "imported":
            return self._cache.get(spelled.id.decode("ascii")) is not None
        return any(self._cache.tagged(pepper.tag(spelled)) is not None for pepper in self._peppers.values())

    def compiled(self, name: str, *, stale: bool = False, at_hand: AtHand | None = None) -> Compiled:
        """A keyspace as verifications need it. Raises ``NotFound``."""
        compiled = self._cache.keyspace(name)
        if compiled is None:
            if stale:
                raise Unavailable("the store does not answer, and this keyspace is not known by heart")
            if at_hand is None:
                found = self._lookup.keyspace(name)
            elif name in at_hand.keyspaces:
                found = at_hand.keyspaces[name]
            else:
                raise Missing("keyspace", name)
            if found is None:
                raise NotFound(f"there is no keyspace {name!r}")
            compiled = Compiled(*found)
            self._cache.put_keyspace(compiled)
        return compiled

    def answer(self, verdict: Verdict) -> Answer:
        """What a client is answered with. Where its keyspace cannot be read, nothing of its words is needed for that."""
        try:
            return self.compiled(verdict.keyspace, stale=verdict.code == "unavailable").answers.of(verdict)
        except Unavailable:
            told = verdict if verdict.valid else msgspec.structs.replace(verdict, code="unavailable")
            return NOWHERE.of(told)

    def fresh(self, now: int) -> bool:
        """Bring memory up to date; ``True`` where the store is gone and memory is all there is.

        Raises ``Unavailable`` where it may not be served any more.
        """
        return self._freshness.check(now)

    def fresh_at_once(self, now: int) -> bool | None:
        """``fresh``, where that takes no wait; ``None`` where it does."""
        return self._freshness.at_once(now)

    def remembered(self, name: str) -> Compiled | None:
        """A keyspace, if it is in memory."""
        return self._cache.keyspace(name)

    def is_current(self, compiled: Compiled) -> bool:
        """Whether a keyspace is the one that is remembered: right after ``fresh``, whether it is still so."""
        return self._cache.keyspace(compiled.keyspace.name) is compiled

    async def afresh(self, now: int) -> bool:
        """``fresh``, for an event loop."""
        return self._freshness.check(now) if self._asking is None else await self._asking.acheck()

    async def ahead(self, now: int, find: Find[T]) -> tuple[bool, T]:
        """What ``fresh`` says, and what a door finds by ``known`` or ``with_gate`` before it asks for a verdict."""
        stale = await self.afresh(now)
        return stale, await self.seek(find, stale=stale)

    async def seek(self, find: Find[T], *, stale: bool) -> T:
        """``ahead``, where ``fresh`` was asked."""
        if not self.far:
            return find(stale=stale)
        at_hand = AtHand()
        return await self._with(at_hand, partial(find, stale=stale, at_hand=at_hand))

    async def acheck(self, ask: Ask, now: int) -> None:
        """See that an ask names a keyspace, and an environment of it. Raises ``NotFound`` or ``Invalid``.

        Where the store does not answer nothing is seen, and the verdict will say so.
        """
        with suppress(Unavailable):
            _, compiled = await self.ahead(now, partial(self.compiled, ask.keyspace))
            environment_of(ask, compiled)

    def known(self, name: str, *, stale: bool, at_hand: AtHand | None = None) -> Compiled | None:
        """A keyspace, or ``None`` where there is none; our own is none to anybody outside."""
        try:
            return None if name == MANAGEMENT else self.compiled(name, stale=stale, at_hand=at_hand)
        except NotFound:
            return None

    def with_gate(self, name: str, *, stale: bool, at_hand: AtHand | None = None) -> Compiled | None:
        """The keyspace that defines a gate, or ``None``."""
        remembered, keyspace = self._cache.gate(name)
        if not remembered:
            if stale:
                raise Unavailable("the store does not answer, and this gate is not known by heart")
            if at_hand is None:
                applied = self._cache.applied
                keyspace = self._lookup.keyspace_with_gate(name)
            elif name in at_hand.gates:
                applied, keyspace = at_hand.gates[name]
            else:
                raise Missing("gate", name)
            self._cache.put_gate(name, keyspace, applied)
        return None if keyspace is None else self.compiled(keyspace, stale=stale, at_hand=at_hand)

    def entry(self, record: KeyRecord) -> Entry | None:
        """The cache's entry of a record that a verdict carries, if it is still the same."""
        entry = self._cache.get(record.id)
        return entry if entry is not None and entry.record is record else None

    # ----------------------------------------------------------------------------------------------- from a yes on

    def _spend(self, record: KeyRecord, cost: int, now: int) -> Spent | Unavailable:
        spent = self._blocks.at_once(record, limits.check_cost(cost), now)
        if spent is not None:
            return spent
        try:
            return self._blocks.ask(record, cost, now).result()
        except Unavailable as trouble:
            return trouble

    async def _aspend(self, record: KeyRecord, cost: int, now: int) -> Spent | Unavailable:
        try:
            return await asyncio.wrap_future(self._blocks.ask(record, cost, now))
        except Unavailable as trouble:
            return trouble

    def _settle(self, verdict: Verdict, spent: Spent | Unavailable) -> Verdict:
        """A verdict after spending: what the limits gave, or which one refused; the latest to reset answers."""
        replace = msgspec.structs.replace
        if isinstance(spent, Unavailable):
            return replace(verdict, code="unavailable", reason=str(spent), retry_after=RETRY_WHEN_UNAVAILABLE)
        if spent.granted:
            return replace(verdict, limits=spent.states)
        never = [state for state in spent.refused if state.reset_seconds is None]
        last = never[0] if never else max(spent.refused, key=lambda state: state.reset_seconds or 0)
        code = _CODE_OF_KIND[last.kind]
        return replace(
            verdict, code=code, reason=last.name, limits=spent.states, retry_after=last.reset_seconds
        )

    async def acharge(self, ask: Ask, verdict: Verdict, now: int) -> Verdict:
        """An ``ok`` verdict after its key's limits were asked: awaited, since the disk may be."""
        assert verdict.key is not None
        spent = self._blocks.at_once(verdict.key, limits.check_cost(ask.cost), now)
        if spent is None:
            return self._settle(verdict, await self._aspend(verdict.key, ask.cost, now))
        return self._settle(verdict, spent)

    def count(self, ask: Ask, verdict: Verdict, now: int) -> None:
        """Count a verdict; where the request may proceed, the use of the secret, and where not, the refusal."""
        environment = ask.environment or self._only_environment(ask.keyspace)
        allowed = verdict.code == "ok"
        if ask.metered:
            used = (verdict.secret or 0, ask.ip) if allowed else None
            self._meter.count(verdict.key, ask.keyspace, environment, verdict.code, ask.resource, now, used)
        if not allowed and ask.recorded:
            if (
                verdict.code == "invalid"
                and verdict.secret is None
                and ask.ip
                and self._is_spam(verdict, ask.ip)
            ):
                self._meter.leave_out()
            else:
                self._meter.refuse(verdict, environment, ask.ip, ask.method, ask.resource)

    def _is_spam(self, verdict: Verdict, ip: str) -> bool:
        """Lay an unproven credential to its source. Of one over its limit, what names no key is not worth a line."""
        over, worth = self._throttle.failed(ip, verdict.at)
        if over and verdict.reason == "unknown" and not self._cache.has_roll:
            self._clerks().submit(self._call_the_roll, self._cache.begin_roll(0))
        return not worth and verdict.named is None

    def _call_the_roll(self, begun: Roll) -> None:
        """Read every id, so that a flood of others need not be looked up."""
        roll, whole = begun, False
        try:
            with self._database.read() as connection:
                roll = self._cache.begin_roll(keys.how_many(connection))
            with self._database.read() as connection:  # after its beginning: what comes later, changes name
                whole = all(self._cache.enter(roll, some) for some in keys.ids(connection)) and all(
                    self._cache.enter(roll, some) for some in keys.tags(connection)
                )
        except Unavailable:
            return  # the next failure tries again
        finally:
            self._cache.close_roll(roll, whole=whole)

    def _only_environment(self, keyspace: str) -> str:
        known = self._cache.keyspace(keyspace)
        return (known.only_environment or "") if known is not None else ""

    def _used(
        self,
        record: KeyRecord,
        secret: SecretRecord,
        presented: Presented,
        ask: Ask,
        now: int,
        at_hand: AtHand | None,
    ) -> None:
        if ask.metered and secret.starts_rotation:
            if at_hand is None:
                self._first_use(record, secret, now)
            else:
                at_hand.later = partial(self._first_use, record, secret, now)
        if secret.pepper != self._current:
            self._rewrap(record, secret, presented.spelled, now)

    def _first_use(self, record: KeyRecord, secret: SecretRecord, now: int) -> None:
        """Write down the use of a secret that is waited for: end the earlier ones of a key whose new one is used first.

        A key that is about to end because nobody uses it (``desk.unused``) has nothing to end: there it is the announcement
        that counts.

        The caller waits for it, once in a rotation: with no grace, the old secret must be refused from here on. Where
        the store does not answer the new secret works all the same, and its next use tries again.
        """
        try:
            with self._database.write() as tx:
                stored = keys.get(tx, record.id, now)
                own = next((s for s in stored.secrets if s.n == secret.n), None) if stored else None
                if own is None or not own.starts_rotation:
                    return
                keys.end_secrets(tx, record.id, secret.n, now + (own.grace or 0))
                keys.set_secret(tx, record.id, secret.n, starts_rotation=0)
                changes.note(tx, "key", record.id, now)
                detail = {"secret": secret.n, "earlier_end_at": now + (own.grace or 0)}
                actor = Actor("system", "first use")
                audit.append(
                    tx,
                    self._keyring,
                    actor,
                    "key.first_use",
                    ("key", record.id),
                    now,
                    account=record.account,
                    detail=detail,
                )
                newest = changes.newest(tx)
        except Unavailable:
            return
        propagation.follow(self._database, newest, now, Propagation())

    def _rewrap(self, record: KeyRecord, secret: SecretRecord, spelled: Spelled, now: int) -> None:
        """Move a proven secret to the current pepper, in the background, once."""
        if (record.id, secret.n) in self._moving:
            return
        self._moving.add((record.id, secret.n))
        key_id, was, current = record.id.encode(), self._peppers[secret.pepper], self._peppers[self._current]
        old, new, tag = was.mac(key_id, spelled.secret), current.mac(key_id, spelled.secret), b""
        if spelled.spelling == "imported":
            tag = current.tag(spelled)
        elif spelled.spelling == "dotted" and old != record.mac_of(secret):
            spelled = credential.dotted_as_imported(spelled)
        if spelled.spelling == "imported":
            old, new = was.mac_of_imported(key_id, spelled), current.mac_of_imported(key_id, spelled)
        self._clerks().submit(self._write_rewrapped, record.id, secret.n, old, new, tag, now)

    def _clerks(self) -> ThreadPoolExecutor:
        if self._clerk is None:
            self._clerk = ThreadPoolExecutor(1, thread_name_prefix="keywright-clerk")
        return self._clerk

    def _write_rewrapped(self, key_id: str, n: int, old: bytes, new: bytes, tag: bytes, now: int) -> None:
        try:
            with self._database.write() as tx:
                if keys.rewrap(tx, key_id, n, old, new, self._keyring.current):
                    changes.note(tx, "key", key_id, now)
                    if tag:
                        # The earlier tag stays: by it, whoever has not got this entry yet learns that it cannot tell.
                        keys.add_tag(tx, tag, key_id)
                        changes.note(tx, "imported", tag.hex(), now)
        except Unavailable:
            return
        finally:
            self._moving.discard((key_id, n))

    def close(self) -> None:
        """Finish what was begun."""
        if self._clerk is not None:
            self._clerk.shutdown()
            self._clerk = None

    def after_fork(self) -> None:
        """Forget threads that did not come along."""
        self._clerk, self._moving = None, set()
        self._cache.forget_roll()  # whoever was making it is the parent's


def environment_of(ask: Ask, compiled: Compiled) -> str:
    """The environment that an ask is about. Raises ``Invalid`` where it names none of several, or an unknown one."""
    environment = ask.environment or compiled.only_environment
    if environment is None:
        names = ", ".join(compiled.keyspace.environments)
        raise Invalid(f"keyspace {ask.keyspace!r} has several; say which of {names}", path="environment")
    if environment not in compiled.keyspace.environments:
        names = ", ".join(compiled.keyspace.environments)
        raise Invalid(
            f"{environment[:40]!r} is not one of keyspace {ask.keyspace!r}: {names}", path="environment"
        )
    return environment


def unavailable(ask: Ask, now: int, request_id: str, reason: str) -> Verdict:
    """The verdict of a verification that could not be done."""
    return Verdict("unavailable", reason, ask.keyspace, now, request_id, retry_after=RETRY_WHEN_UNAVAILABLE)


__all__ = ["Engine", "Given", "environment_of", "unavailable"]
