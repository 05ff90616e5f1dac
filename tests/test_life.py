"""The life of keys against a small reference of it: whatever is done in whatever order, both say the same."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from conftest import again
from keywright import Issued, Keywright, KeywrightError
from keywright.model import Ask
from keywright.schemes import Presented
from keywright.testing import Clock
from keywright.times import DAY, SECOND

HOUR = 3600
LONGEST = 30 * DAY
SCOPES = ("things:read", "things:write")
ENVIRONMENTS = {"production": "staging", "staging": "production"}
CODES = ("ok", "invalid", "invalidated", "disabled", "expired", "rotated", "account_suspended")
SEEDS = range(50) if os.environ.get("KEYWRIGHT_PROOF") else range(1)


# ------------------------------------------------------------------------------------------------------ the reference


@dataclass
class Secret:
    """A secret as the reference knows it; ``waits`` is the grace that begins with its first use."""

    ends: int | None = None
    waits: int | None = None

    def lives(self, now: int) -> bool:
        """Whether it has not ended."""
        return self.ends is None or now < self.ends

    def end(self, at: int) -> None:
        """End it at an instant, unless it ends sooner."""
        self.ends = at if self.ends is None else min(self.ends, at)


@dataclass
class Life:
    """A key as the reference knows it: its secrets in the order in which they were made."""

    account: str
    environment: str
    access: str
    scopes: tuple[str, ...]
    expires: int | None
    left: int | None  # credits
    state: str = "active"
    secrets: list[Secret] = field(default_factory=lambda: [Secret()])

    def standing(self, which: int, now: int, active: bool, environment: str) -> str:
        """What a request with one of its secrets is told that asks who is calling, and nothing else."""
        if self.state == "deleted":
            return "invalid"
        if self.state != "active":
            return self.state
        if self.expires is not None and now >= self.expires:
            return "expired"
        if not self.secrets[which].lives(now):
            return "rotated"
        if environment != self.environment:
            return "wrong_environment"
        return "ok" if active else "account_suspended"

    def verdict(
        self,
        which: int,
        now: int,
        active: bool,
        environment: str,
        scopes: tuple[str, ...],
        method: str | None,
    ) -> str:
        """What a request with one of its secrets is told, and what that does to it."""
        standing = self.standing(which, now, active, environment)
        if standing != "ok":
            return standing
        if not self.allows(scopes, method):
            return "insufficient_scope"
        self.used(which, now)
        if self.left == 0:
            return "quota_exhausted"
        self.left = None if self.left is None else self.left - 1
        return "ok"

    def allows(self, scopes: tuple[str, ...], method: str | None) -> bool:
        """Whether its access suffices."""
        reading = bool(scopes) and set(scopes) <= {"things:read"}
        match self.access:
            case "all":
                return True
            case "restricted":
                return bool(scopes) and set(scopes) <= set(self.scopes)
        return "things:write" not in scopes and (reading or method == "GET")

    def used(self, which: int, now: int) -> None:
        """The first use of a new secret begins the end of the earlier ones."""
        waits, self.secrets[which].waits = self.secrets[which].waits, None
        if waits is not None:
            for earlier in self.secrets[:which]:
                earlier.end(now + waits)

    def rotating(self, now: int) -> bool:
        """Whether two secrets live."""
        return self.state != "invalidated" and sum(secret.lives(now) for secret in self.secrets) == 2

    def rotate(self, now: int, grace: int, first_use: bool, force: bool) -> str:
        """Add a secret, or say what is in the way."""
        if self.state == "invalidated" or (
            self.state == "active" and self.expires is not None and now >= self.expires
        ):
            return "conflict"
        if sum(secret.lives(now) for secret in self.secrets) > 1 and not force:
            return "conflict"
        waits = first_use and not force
        ends = now if force else now + (LONGEST * SECOND if waits else grace)
        for earlier in self.secrets:
            earlier.end(ends if self.expires is None else min(ends, self.expires))
        self.secrets.append(Secret(waits=grace if waits else None))
        return "ok"

    def finish(self, now: int) -> None:
        """End the old secret of a rotation."""
        self.secrets[-1].waits = None
        for earlier in self.secrets[:-1]:
            earlier.end(now)

    def cancel(self, now: int) -> None:
        """End the new secret of a rotation; the old one goes on."""
        self.secrets[-1].ends, self.secrets[-1].waits = now, None
        old = next(secret for secret in reversed(self.secrets[:-1]) if secret.lives(now))
        old.ends = None

    def stop(self, now: int) -> None:
        """End all of its secrets, for ever."""
        self.state = "invalidated"
        for secret in self.secrets:
            secret.end(now)


# ------------------------------------------------------------------------------------------------------- the machine

USES = st.tuples(
    st.integers(0, 3),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([(), SCOPES[:1], SCOPES[1:], SCOPES]),
    st.sampled_from([None, "GET", "POST"]),
    st.booleans(),
)


class Lives(RuleBasedStateMachine):
    """Keys of two accounts, on an installation that is opened twice, as two processes would."""

    kw: ClassVar[Keywright]
    other: ClassVar[Keywright]
    clock: ClassVar[Clock]
    steps: ClassVar[int] = 0
    verdicts: ClassVar[Counter[str]] = Counter()
    numbers: ClassVar[Any] = count(1)
    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        number = next(self.numbers)
        self.active = {f"one{number}": True, f"two{number}": True}
        for username in self.active:
            self.kw.accounts.create(username)
        self.lives: dict[str, Life] = {}
        self.tokens: dict[str, list[str]] = {}

    def at(self) -> int:
        """Now."""
        return self.clock()

    def same(self, expected: str, act: Callable[[], object]) -> bool:
        """Do something that is to go well, or to fail with a code; whether it went well."""
        said = "ok"
        try:
            act()
        except KeywrightError as refused:
            said = refused.code
        assert said == expected
        return said == "ok"

    def found(self, key: str, otherwise: str = "ok") -> str:
        """What a verb on a key is told."""
        return "not_found" if self.lives[key].state == "deleted" else otherwise

    @rule(
        target=keys,
        first=st.booleans(),
        environment=st.sampled_from(list(ENVIRONMENTS)),
        access=st.sampled_from(
            [("all", ()), ("read_only", ()), ("restricted", SCOPES[:1]), ("restricted", SCOPES)]
        ),
        expires=st.sampled_from([None, None, HOUR, 40 * DAY]),
        left=st.sampled_from([None, None, None, 2]),
    )
    def create(
        self,
        first: bool,
        environment: str,
        access: tuple[str, tuple[str, ...]],
        expires: int | None,
        left: int | None,
    ) -> Any:
        """Make a key; for an account that is not active none is made."""
        username = list(self.active)[first]
        life = Life(
            username, environment, *access, None if expires is None else self.at() + expires * SECOND, left
        )
        made: list[Issued] = []
        asked = {
            "keyspace": "every",
            "account": username,
            "environment": environment,
            "name": "A key",
            "access": access[0],
            "scopes": access[1] or None,
            "expires_at": life.expires,
            "limits": [] if left is None else [f"credits:{left}"],
        }
        expected = "ok" if self.active[username] else "conflict"
        if not self.same(expected, lambda: made.append(self.kw.keys.create(**asked))):
            return multiple()
        key = made[0].key.id
        self.lives[key], self.tokens[key] = life, [made[0].credential.token.reveal()]
        return key

    @rule(
        key=keys,
        access=st.sampled_from(["all", "read_only", "restricted"]),
        expires=st.sampled_from([None, HOUR]),
    )
    def edit(self, key: str, access: str, expires: int | None) -> None:
        """Give a key other access and another end."""
        life = self.lives[key]
        expected = self.found(key, "conflict" if life.state == "invalidated" else "ok")
        at = None if expires is None else self.at() + expires * SECOND
        scopes = SCOPES[:1] if access == "restricted" else ()
        if self.same(
            expected,
            lambda: self.kw.keys.edit(key, access=access, scopes=scopes or None, expires_at=at),
        ):
            life.access, life.expires, life.scopes = access, at, scopes

    @rule(
        key=keys,
        grace=st.sampled_from([0, 0, HOUR, LONGEST]),
        first_use=st.booleans(),
        force=st.sampled_from([False, False, True]),
    )
    def rotate(self, key: str, grace: int, first_use: bool, force: bool) -> None:
        """Give a key a second secret."""
        life, made = self.lives[key], list[Issued]()
        now = self.at()
        expected = self.found(key, "")
        if expected != "not_found":
            expected = life.rotate(now, grace * SECOND, first_use, force)
        start = "first_use" if first_use else "now"
        if self.same(
            expected,
            lambda: made.append(self.kw.keys.rotate(key, grace_seconds=grace, start=start, force=force)),
        ):
            self.tokens[key].append(made[0].credential.token.reveal())

    @rule(key=keys, verb=st.sampled_from(["finish", "cancel"]))
    def settle(self, key: str, verb: str) -> None:
        """Finish or cancel a rotation."""
        life, now = self.lives[key], self.at()
        expected = self.found(key, "ok" if life.rotating(now) else "conflict")
        if self.same(expected, lambda: getattr(self.kw.keys, verb)(key)):
            getattr(life, verb)(now)

    @rule(key=keys, verb=st.sampled_from(["disable", "enable", "enable"]))
    def switch(self, key: str, verb: str) -> None:
        """Stop a key, or let it work again."""
        life = self.lives[key]
        expected = self.found(key, "conflict" if life.state == "invalidated" else "ok")
        if self.same(expected, lambda: getattr(self.kw.keys, verb)(key)):
            life.state = "disabled" if verb == "disable" else "active"

    @rule(key=keys, once=st.integers(0, 5))
    def end(self, key: str, once: int) -> None:
        """Invalidate a key, or delete it; not too often, or there would be none left."""
        if once > 1:
            return
        life, now = self.lives[key], self.at()
        if self.same(self.found(key), lambda: (self.kw.keys.invalidate, self.kw.keys.delete)[once](key)):
            if once:
                life.state = "deleted"
            elif life.state != "invalidated":
                life.stop(now)

    @rule(first=st.booleans(), active=st.sampled_from([True, True, False]))
    def account(self, first: bool, active: bool) -> None:
        """Suspend an account, or activate it."""
        username = list(self.active)[first]
        (self.kw.accounts.activate if active else self.kw.accounts.suspend)(username)
        self.active[username] = active

    @rule(by=st.sampled_from([1, 59, HOUR - 1, HOUR - 1, HOUR, HOUR, DAY, LONGEST - 1, LONGEST]))
    def wait(self, by: int) -> None:
        """Let time pass."""
        self.clock.advance(seconds=by)

    @rule(key=keys, uses=st.lists(USES, min_size=1, max_size=4))
    def use(self, key: str, uses: list[tuple[int, bool, tuple[str, ...], str | None, bool]]) -> None:
        """Use a key some times, by any of its secrets, here or in the other process."""
        for which, right, scopes, method, elsewhere in uses:
            life = self.lives[key]
            environment = life.environment if right else ENVIRONMENTS[life.environment]
            self.verify(key, -1 - which % len(life.secrets), environment, scopes, method, elsewhere)

    @rule(key=keys, elsewhere=st.booleans())
    def use_newest(self, key: str, elsewhere: bool) -> None:
        """Use a key's newest secret for something that reads."""
        self.verify(key, -1, self.lives[key].environment, SCOPES[:1], "GET", elsewhere)

    @rule(key=keys, grace=st.sampled_from([0, HOUR]), elsewhere=st.booleans())
    def rotate_and_use(self, key: str, grace: int, elsewhere: bool) -> None:
        """Give a key a secret, and use it at once."""
        self.rotate(key, grace, True, False)
        self.verify(key, -1, self.lives[key].environment, SCOPES[:1], "GET", elsewhere)

    def verify(
        self,
        key: str,
        which: int,
        environment: str,
        scopes: tuple[str, ...],
        method: str | None,
        elsewhere: bool,
    ) -> None:
        """Verify once."""
        life, tokens = self.lives[key], self.tokens[key]
        which %= len(tokens)
        expected = life.verdict(which, self.at(), self.active[life.account], environment, scopes, method)
        verdict = (self.other if elsewhere else self.kw).verify(
            {"Authorization": f"Bearer {tokens[which]}"},
            keyspace="every",
            environment=environment,
            scopes=scopes,
            method=method,
        )
        Lives.verdicts[verdict.code] += 1
        assert verdict.code == expected, verdict.reason

    @invariant()
    def every_secret_stands_as_it_should(self) -> None:
        """After each step, every secret of the newest keys is told the same in both processes; asking changes nothing."""
        Lives.steps += 1
        now = self.at()
        for key, life in list(self.lives.items())[-3:]:
            for which, token in enumerate(self.tokens[key]):
                expected = life.standing(which, now, self.active[life.account], life.environment)
                for kw in (self.kw, self.other):
                    ask = Ask(
                        "every", life.environment, authenticate_only=True, metered=False, recorded=False
                    )
                    verdict = kw.installation.engine.verify(ask, Presented.of_token(token.encode()), now)
                    Lives.verdicts[verdict.code] += 1
                    assert verdict.code == expected, (which, verdict.reason)


def live(kw: Keywright, clock: Clock, number: int, examples: int) -> int:
    """Live that many sequences of up to 60 steps, drawn from a seed; how many steps there were."""
    with again(kw, clock=clock) as other:
        Lives.kw, Lives.other, Lives.clock, Lives.steps = kw, other, clock, 0
        Lives.verdicts.clear()
        machine = seed(number)(Lives)
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=60,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            ),
        )
    return Lives.steps


@pytest.mark.requirement("X-12")
@pytest.mark.security("R-22", "T-45")
@pytest.mark.full("fifty seeds")
@pytest.mark.parametrize("number", SEEDS)
def test_every_life_is_as_the_reference_says(kw: Keywright, clock: Clock, number: int) -> None:
    """Ten thousand steps of making, changing, stopping and using keys, on two processes: each verdict and refusal is the reference's."""
    assert live(kw, clock, number, 200) > 10_000
    assert min(Lives.verdicts[code] for code in CODES) > 100, Lives.verdicts
    assert kw.installation.trail.verify() is None


@pytest.mark.stores
def test_lives_on_each_database(kw: Keywright, clock: Clock) -> None:
    """The same on SQLite and on PostgreSQL, for fifteen hundred steps."""
    assert live(kw, clock, 7, 30) > 1_500
