"""What a client is told: status, headers and body of every verdict."""

import json

import http_sf
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import EVERY, bearer, make
from keywright import Keywright, answers, limits, profiles
from keywright.answers import Answers, rate_headers, say_headers
from keywright.credential import checksum
from keywright.errors import CODES
from keywright.model import Keyspace, Limit, LimitState, Verdict
from keywright.schemes import accepted_sets
from keywright.testing import Clock

EVERYTHING = profiles.load(EVERY)
PARTNA = profiles.load(profiles.source("partna"))
BEFORE_PROOF = ("missing", "ambiguous", "invalid")
REFUSALS = (*BEFORE_PROOF, "invalidated", "disabled", "expired", "rotated", "wrong_environment", "account_suspended",
            "ip_not_allowed", "insufficient_scope", "rate_limited", "quota_exhausted", "unavailable")  # fmt: skip
PROVEN = REFUSALS[3:]

names = st.from_regex(r"[a-z][a-z0-9_-]{0,39}", fullmatch=True)
numbers = st.integers(0, limits.LARGEST)
states = st.builds(
    LimitState,
    names,
    st.sampled_from(["quota", "rate", "credits"]),
    numbers,
    st.one_of(
        st.sampled_from(["minute", "hour", "day", "month"]), st.integers(1, limits.LONGEST_WINDOW), st.none()
    ),
    numbers,
    st.one_of(st.none(), st.integers(0, limits.LONGEST_WINDOW)),
)


def verdict(code: str, **over: object) -> Verdict:
    """A verdict with a code, and what else is said."""
    return msgspec.structs.replace(Verdict(code, code, "every", 0, "req_1"), **over)


def answer(
    code: str, keyspace: Keyspace = EVERYTHING, **over: object
) -> tuple[int, list[tuple[str, str]], bytes]:
    """What a keyspace answers to a verdict."""
    return Answers(keyspace).of(verdict(code, **over))


def header(headers: list[tuple[str, str]], name: str) -> str | None:
    """The one value of a header, or ``None``."""
    (value,) = [text for found, text in headers if found.lower() == name.lower()] or [None]
    return value


def detail(code: str, keyspace: Keyspace = EVERYTHING) -> str:
    """The sentence that a client reads."""
    body = json.loads(answer(code, keyspace)[2])
    return str(body.get("detail") or body["message"])


def six(body: str) -> str:
    """The six characters that make a body a well-formed token."""
    return checksum(body.encode()).decode()


# --------------------------------------------------------------------------------------------------- before the proof


@pytest.mark.security("K-03", "T-22")
@pytest.mark.requirement("X-06")
@pytest.mark.parametrize("code", BEFORE_PROOF)
@pytest.mark.parametrize(
    "over",
    [
        {"reason": "checksum"},
        {"reason": "unknown"},
        {"reason": "deleted"},
        {"scheme": "basic"},
        {"at": 10**15},
        {"asked": ("things:read",)},
        {"stale": True},
    ],
)
def test_an_answer_before_the_proof_is_always_the_same(code: str, over: dict[str, object]) -> None:
    """Whatever the true reason, the three answers before the proof are the same to the byte but for the request id."""
    first, second = answer(code), answer(code, **over, request_id="req_2")

    assert (second[0], second[1]) == (first[0], first[1])
    assert second[2] == first[2].replace(b"req_1", b"req_2")
    assert second[2].count(b"req_2") == 2


@pytest.mark.security("K-03", "T-22")
@pytest.mark.requirement("X-06", "G-11")
def test_unproven_requests_cannot_be_told_apart(kw: Keywright) -> None:
    """An unknown, misspelled, deleted, foreign or wrongly proven key, whatever its state, is answered with the same bytes."""
    token = make(kw).credential.token.reveal()
    gone, foreign, stopped = make(kw), make(kw, keyspace="default"), make(kw)
    kw.keys.delete(gone.key.id)
    kw.keys.invalidate(stopped.key.id)
    wrong = f"{stopped.key.id}_{token[-38:-6]}"
    presented = [
        f"Bearer {token[:-1]}",
        f"Bearer {token[:-1]}{'x' if token[-1] != 'x' else 'y'}",
        f"Bearer {wrong}{six(wrong)}",
        "Bearer every_live_k00000000000000A_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" + six("every_live_k00000000000000A_" + "A" * 32),
        bearer(gone)["Authorization"],
        bearer(foreign)["Authorization"],
        "Bearer x",
    ]  # fmt: skip
    told = {
        (answered.status, str(answered.headers), answered.body)
        for value in presented
        for answered in [
            kw.answer(
                kw.verify(
                    {"Authorization": value},
                    keyspace="every",
                    environment="production",
                    method="GET",
                    request_id="r",
                )
            )
        ]
    }

    assert len(told) == 1


@pytest.mark.requirement("A-19")
@pytest.mark.parametrize("code", BEFORE_PROOF)
@pytest.mark.parametrize("profile", [*profiles.SHIPPED, EVERY])
def test_before_the_proof_every_header_set_is_listed(code: str, profile: str) -> None:
    """Whoever gets it wrong is told every accepted header set, and to look for quotes and spaces."""
    keyspace = profiles.load(profiles.source(profile) if profile in profiles.SHIPPED else profile)
    told = detail(code, keyspace)

    assert [shown for shown in accepted_sets(keyspace) if shown not in told] == []
    assert "Look for quotes and spaces" in told


@pytest.mark.parametrize("code", PROVEN)
def test_after_the_proof_no_header_set_is_listed(code: str) -> None:
    """Whoever has proven a key is told what is wrong with it, and not how to send one."""
    assert "Authorization" not in detail(code)
    assert "\u2018" not in detail(code)


# ------------------------------------------------------------------------------------------------------- status, headers


@pytest.mark.requirement("G-09")
@pytest.mark.parametrize("code", REFUSALS)
def test_the_status_is_the_tables(code: str) -> None:
    """Every refusal has the status of the one table: 401 for the credential, 403 for what it may not, 429 and 503."""
    expected = {"account_suspended": 403, "ip_not_allowed": 403, "insufficient_scope": 403, "rate_limited": 429,
                "quota_exhausted": 429, "unavailable": 503}.get(code, 401)  # fmt: skip

    assert answer(code)[0] == CODES[code].status == expected


@pytest.mark.requirement("X-06")
@pytest.mark.security("H-01")
@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("keyspace", [EVERYTHING, PARTNA])
def test_every_401_has_one_challenge_and_it_is_bearer(code: str, keyspace: Keyspace) -> None:
    """A 401 carries exactly one WWW-Authenticate, for Bearer and never Basic, with the error of RFC 6750."""
    status, headers, _ = answer(code, keyspace)
    challenge = header(headers, "WWW-Authenticate")
    error = {
        "missing": "",
        "ambiguous": ', error="invalid_request"',
        "insufficient_scope": ', error="insufficient_scope"',
    }

    if status == 401 or code == "insufficient_scope":
        assert challenge == f'Bearer realm="{keyspace.title}"' + error.get(code, ', error="invalid_token"')
    else:
        assert challenge is None


@pytest.mark.security("H-08")
@pytest.mark.parametrize("code", ["ok", *REFUSALS])
def test_no_answer_may_be_stored(code: str) -> None:
    """Every answer says ``no-store``, and none of its headers comes twice."""
    _, headers, _ = answer(code, limits=(LimitState("quota-day", "quota", 5, "day", 4, 60),))
    found = [name.lower() for name, _ in headers]

    assert header(headers, "Cache-Control") == "no-store"
    assert len(found) == len(set(found))


def test_a_yes_is_an_empty_200() -> None:
    """An allowed request gets an empty 200 without a challenge or a content type."""
    status, headers, body = answer("ok")

    assert (status, headers, body) == (200, [("Cache-Control", "no-store")], b"")


# ----------------------------------------------------------------------------------------------------------- the body


@pytest.mark.security("H-02")
@pytest.mark.requirement("P-12")
@pytest.mark.parametrize("code", REFUSALS)
def test_the_body_is_problem_json(code: str) -> None:
    """A refusal is problem+json with the code, its constant title, its status and the request's id."""
    status, headers, body = answer(code)
    problem = json.loads(body)

    assert header(headers, "Content-Type") == "application/problem+json"
    assert problem.pop("detail")
    assert problem == {
        "type": f"urn:keywright:problem:{code}",
        "title": CODES[code].title,
        "status": status,
        "code": code,
        "request_id": "req_1",
        "instance": "req_1",
    }


@pytest.mark.requirement("P-12")
@pytest.mark.parametrize("code", REFUSALS)
def test_partnas_body_is_a_message(code: str) -> None:
    """In partna's shape a refusal has a ``message``, with code and request id under ``data``, as plain JSON."""
    _, headers, body = answer(code, PARTNA)
    told = json.loads(body)

    assert header(headers, "Content-Type") == "application/json"
    assert told == {"message": told["message"], "data": {"code": code, "request_id": "req_1"}}
    assert told["message"]


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_request_id_comes_back_as_it_is(request_id: str) -> None:
    """A request id that the host took from its client, quotes and all, is told back in JSON that still parses."""
    for keyspace in (EVERYTHING, PARTNA):
        body = json.loads(Answers(keyspace).body("invalid", request_id))

        assert body.get("data", body)["request_id"] == request_id
        assert set(body) == set(json.loads(Answers(keyspace).body("invalid", "r")))


# ---------------------------------------------------------------------------------------------- what cannot be injected


@pytest.mark.parametrize(
    "scope",
    [
        'x", realm="evil',
        "x\r\nSet-Cookie: a=b",
        "x y",
        "x\\",
        "caf\u00e9",
        "",
        "x" * 101,
        "\x7f",
        "x\0",
        "x\n",
    ],
)
def test_a_scope_cannot_inject_into_a_header(scope: str) -> None:
    """A scope that could not stand in a challenge, as the host may ask any, is left out of it."""
    headers = answer("insufficient_scope", asked=("things:read", scope))[1]

    assert header(headers, "WWW-Authenticate") == 'Bearer realm="Every", error="insufficient_scope"'


def test_the_scopes_asked_are_in_the_challenge() -> None:
    """Scopes that can stand in a challenge do, as RFC 6750 has it; where none was asked there is no empty list."""
    asked = answer("insufficient_scope", asked=("things:read", "things:write"))[1]
    nothing = answer("insufficient_scope")[1]

    assert (header(asked, "WWW-Authenticate") or "").endswith(', scope="things:read things:write"')
    assert header(nothing, "WWW-Authenticate") == 'Bearer realm="Every", error="insufficient_scope"'


@given(st.text(max_size=50))
@settings(max_examples=200, deadline=None)
def test_a_title_cannot_break_the_challenge(title: str) -> None:
    """Whatever a keyspace is called, the realm is a quoted string of ASCII without a quote or a control character."""
    keyspace = msgspec.structs.replace(EVERYTHING, title=title)
    challenge = header(answer("invalid", keyspace)[1], "WWW-Authenticate") or ""
    realm = challenge.removeprefix('Bearer realm="').removesuffix('", error="invalid_token"')

    assert len(challenge) == len(realm) + len('Bearer realm="", error="invalid_token"')
    assert all(" " <= character <= "~" and character not in '"\\' for character in realm)


def test_headers_as_asgi_takes_them() -> None:
    """For ASGI, names are in lower case and both sides are bytes."""
    assert say_headers([("Retry-After", "5"), ("X", "\u2019")]) == [(b"retry-after", b"5"), (b"x", b"?")]


# --------------------------------------------------------------------------------------------------------------- limits


@pytest.mark.security("H-03")
@given(st.lists(states, min_size=1, max_size=6))
@settings(max_examples=150, deadline=None)
def test_rate_limit_fields_parse_with_an_independent_parser(found: list[LimitState]) -> None:
    """Both fields are structured-field Lists of Strings, and hold for each limit what it holds, in their order."""
    headers = dict(rate_headers(verdict("ok", limits=tuple(found))))
    policies = http_sf.parse(headers["RateLimit-Policy"].encode(), tltype="list")
    remaining = http_sf.parse(headers["RateLimit"].encode(), tltype="list")

    assert [(name, has["q"]) for name, has in policies] == [(state.name, state.limit) for state in found]
    assert [(name, has["r"]) for name, has in remaining] == [(state.name, state.remaining) for state in found]
    assert [has.get("t") for _, has in remaining] == [state.reset_seconds or None for state in found]


@pytest.mark.security("H-03")
def test_the_largest_limit_can_be_written() -> None:
    """The largest limit that is accepted is still an integer that a structured field can hold."""
    largest = Limit("credits", "credits", limits.LARGEST)
    headers = dict(rate_headers(verdict("ok", limits=(limits.state(largest, 0, None),))))

    assert http_sf.parse(headers["RateLimit"].encode(), tltype="list") == [("credits", {"r": limits.LARGEST})]


@pytest.mark.parametrize(
    ("per", "window"),
    [("minute", 60), ("hour", 3600), ("day", 86_400), ("month", 2_592_000), (10, 10), (None, None)],
)
def test_the_window_of_a_policy(per: str | int | None, window: int | None) -> None:
    """A policy tells its window in seconds, and credits, which have none, leave it out."""
    state = LimitState("x", "quota", 5, per, 4, None)
    ((_, has),) = http_sf.parse(
        dict(rate_headers(verdict("ok", limits=(state,))))["RateLimit-Policy"].encode(), tltype="list"
    )

    assert has.get("w") == window


@pytest.mark.requirement("X-17")
def test_no_limit_no_rate_limit_fields() -> None:
    """A key without limits gets no field about them, and one with a limit gets both."""
    with_one = answer("ok", limits=(LimitState("quota-day", "quota", 5, "day", 4, 60),))[1]

    assert rate_headers(verdict("ok")) == []
    assert header(with_one, "RateLimit") == '"quota-day";r=4;t=60'
    assert header(with_one, "RateLimit-Policy") == '"quota-day";q=5;w=86400'


@pytest.mark.requirement("X-17")
def test_gallabox_gets_the_older_fields_too() -> None:
    """A profile can ask for the three X-RateLimit fields: the tightest limit, its reset in epoch seconds, rounded up."""
    gallabox = profiles.load(profiles.source("gallabox"))
    two = (LimitState("quota-day", "quota", 5, "day", 4, 60), LimitState("rate-10s", "rate", 3, 10, 1, 2))
    headers = dict(answer("ok", gallabox, limits=two, at=1_800_000_000_000_001)[1])

    assert headers["X-RateLimit-Limit"] == "3"
    assert headers["X-RateLimit-Remaining"] == "1"
    assert headers["X-RateLimit-Reset"] == "1800000003"


def test_retry_after_is_the_verdicts() -> None:
    """Retry-After stands where a verdict says when, and nowhere else: not for credits, which never come back."""
    assert header(answer("rate_limited", retry_after=7)[1], "Retry-After") == "7"
    assert header(answer("unavailable", retry_after=answers.RETRY_WHEN_UNAVAILABLE)[1], "Retry-After") == "1"
    assert header(answer("quota_exhausted")[1], "Retry-After") is None


@pytest.mark.security("H-04")
@pytest.mark.requirement("X-17", "B-15")
@pytest.mark.parametrize(
    ("given_limits", "code"),
    [
        (["2/minute"], "quota_exhausted"),
        (["2/month"], "quota_exhausted"),
        (["rate:2/10s"], "rate_limited"),
        (["rate:2/10s", "2/minute"], "quota_exhausted"),
        (["rate:2/1h", "2/minute"], "rate_limited"),
        (["rate:2/10s", "5/day"], "rate_limited"),
    ],
)
def test_a_client_that_waits_as_told_gets_through(
    kw: Keywright, clock: Clock, given_limits: list[str], code: str
) -> None:
    """Retry-After is never earlier than the ``t`` of any limit that is used up, and waiting exactly so long suffices."""
    key = make(kw, limits=given_limits)
    ask = {"keyspace": "every", "environment": "production", "method": "GET"}
    passed = [kw.verify(bearer(key), **ask).code for _ in range(2)]
    answered = kw.answer(kw.verify(bearer(key), **ask))
    headers = dict(answered.headers)
    wait = int(headers["Retry-After"])
    exhausted = [
        has["t"] for _, has in http_sf.parse(headers["RateLimit"].encode(), tltype="list") if has["r"] == 0
    ]
    clock.advance(seconds=wait)

    assert passed == ["ok", "ok"]
    assert json.loads(answered.body)["code"] == code
    assert exhausted
    assert wait >= max(exhausted)
    assert kw.verify(bearer(key), **ask).code == "ok"
