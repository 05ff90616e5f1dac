"""How a credential rides in a request: every scheme, and every way to get one wrong."""

from base64 import b64encode
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import EVERY
from keywright import profiles
from keywright.schemes import SCHEMES, Presented, Reader, Unproven, accepted_sets, from_mapping

ID = "acme_live_k00000000000000A"
TOKEN = f"{ID}_{'A' * 32}2WTkVW"
OTHER = f"acme_test_k{'z' * 15}_0123456789ABCDEFGHIJKLMNOPQRSTUV3zzYed"
SECRET = f"acmesec_{'A' * 32}0DUbpJ"
DOTTED = "n58lzybi." + "0aZ9" * 8
BASIC = b64encode(f"{ID}:{SECRET}".encode()).decode()

EVERYTHING = profiles.load(EVERY)
READER = Reader(EVERYTHING)

Sent = list[tuple[str, str]]

#: A good request in every scheme.
GOOD: dict[str, Sent] = {
    "bearer": [("Authorization", f"Bearer {TOKEN}")],
    "basic": [("Authorization", f"Basic {BASIC}")],
    "key_secret": [("X-API-KEY", ID), ("X-API-SECRET", SECRET)],
    "camel_pair": [("apiKey", ID), ("apiSecret", SECRET)],
    "key_user": [("x-api-key", TOKEN), ("x-api-user", "globex")],
    "api_key_auth": [("Authorization", f"Api-Key {TOKEN}")],
    "api_key_auth, as a header": [("Api-Key", TOKEN)],
    "header": [("X-Token", TOKEN)],
}
FORMS = pytest.mark.parametrize("sent", GOOD.values(), ids=GOOD)
EACH_HEADER = pytest.mark.parametrize(
    ("sent", "at"),
    [
        pytest.param(sent, at, id=f"{scheme}-{sent[at][0]}")
        for scheme, sent in GOOD.items()
        for at in range(len(sent))
    ],
)
PAIRS = pytest.mark.parametrize("scheme", ["key_secret", "camel_pair", "key_user"])
#: What has a name that stands in a header or in an address.
CARRIERS = ["Authorization", "X-API-KEY", "X-API-SECRET", "apiKey", "apiSecret", "x-api-user", "Api-Key", "X-Token"]  # fmt: skip


def read(sent: Sent, url: str | bytes | None = None, *, reader: Reader = READER) -> Presented | Unproven:
    """Read a request's headers, given as a client writes them."""
    return reader.read(from_mapping(sent), url)


def said(sent: Sent, url: str | bytes | None = None, *, reader: Reader = READER) -> str:
    """The reason of a request that holds no provable credential, or the scheme of one that does."""
    found = read(sent, url, reader=reader)
    return found.scheme if isinstance(found, Presented) else found.reason


def changed(sent: Sent, at: int, value: str) -> Sent:
    """The same headers with another value in one of them."""
    return [*sent[:at], (sent[at][0], value), *sent[at + 1 :]]


def only(*schemes: str, header: str = "") -> Reader:
    """A reader of a keyspace that accepts only these schemes."""
    return Reader(msgspec.structs.replace(EVERYTHING, schemes=schemes, header=header))


# ------------------------------------------------------------------------------------------------------ every scheme


@pytest.mark.requirement("X-01", "F-02", "P-01", "A-14", "A-15")
@pytest.mark.parametrize(("scheme", "sent"), GOOD.items())
def test_every_scheme_carries_the_same_key(scheme: str, sent: Sent) -> None:
    """Whatever the headers, the same id and secret come out, under the scheme's own name."""
    found = read(sent)

    assert isinstance(found, Presented)
    assert found.scheme == scheme.partition(",")[0]
    assert (found.spelled.id, found.spelled.secret) == (ID.encode(), b"A" * 32)
    assert found.username == (b"globex" if scheme == "key_user" else None)


def test_every_scheme_is_in_these_tables() -> None:
    """A scheme that is added to the product has to be added to these tables too."""
    assert {form.partition(",")[0] for form in GOOD} == set(SCHEMES)


@pytest.mark.requirement("P-06")
@FORMS
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.title, str.swapcase])
def test_header_names_match_without_regard_to_case(sent: Sent, spell: object) -> None:
    """The case of a header's name makes no difference."""
    assert read([(spell(name), value) for name, value in sent]) == read(sent)  # type: ignore[operator]


@pytest.mark.requirement("A-16")
@pytest.mark.parametrize("scheme", ["bearer", "basic", "api_key_auth"])
@pytest.mark.parametrize("spell", [str.lower, str.upper, str.swapcase])
def test_the_word_before_the_value_matches_without_regard_to_case(scheme: str, spell: object) -> None:
    """``bearer``, ``BASIC`` and ``API-KEY`` are as good as the usual spelling."""
    ((name, value),) = GOOD[scheme]
    word, _, rest = value.partition(" ")

    assert read([(name, f"{spell(word)} {rest}")]) == read(GOOD[scheme])  # type: ignore[operator]


@pytest.mark.parametrize("scheme", ["bearer", "basic", "api_key_auth"])
@pytest.mark.parametrize("between", ["  ", "   "])
def test_a_second_space_after_the_word_is_tolerated(scheme: str, between: str) -> None:
    """Two spaces between word and value are read like one; a tab or none at all is no credential of ours."""
    ((name, value),) = GOOD[scheme]

    assert read([(name, value.replace(" ", between))]) == read(GOOD[scheme])
    assert said([(name, value.replace(" ", "\t"))]) == "no_carrier"
    assert said([(name, value.replace(" ", ""))]) == "no_carrier"


@EACH_HEADER
@pytest.mark.parametrize("around", [" {}", "{} ", "\t{}", "  {} \t"])
def test_white_space_around_a_value_is_not_part_of_it(sent: Sent, at: int, around: str) -> None:
    """Blanks and tabs before and after a value, which HTTP says mean nothing, are taken off."""
    assert read(changed(sent, at, around.format(sent[at][1]))) == read(sent)


# ---------------------------------------------------------------------------------------------------------- missing


@pytest.mark.requirement("F-01")
@pytest.mark.parametrize(
    "sent",
    [
        [],
        [("Cookie", f"session={TOKEN}")],
        [("Accept", "*/*"), ("User-Agent", "curl/8")],
        [("Authorization", "")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer   ")],
        [("Authorization", "Basic ")],
        [("Api-Key", "")],
        [("X-Token", " \t ")],
        [("X-API-KEY", ""), ("X-API-SECRET", "")],
        [("apiKey", " "), ("Authorization", "")],
    ],
)
def test_no_credential_is_missing(sent: Sent) -> None:
    """A request without a credential, or with nothing but empty carriers, is told that one is missing."""
    assert read(sent) == Unproven("missing", "no_carrier")


@pytest.mark.requirement("F-03", "P-02")
@PAIRS
@pytest.mark.parametrize("at", [0, 1])
def test_half_a_pair_is_missing(scheme: str, at: int) -> None:
    """One of two headers is half a credential, whether the other one is absent or empty."""
    half = GOOD[scheme][at]

    assert read([half]) == Unproven("missing", "half_pair")
    assert read(changed(GOOD[scheme], 1 - at, "")) == Unproven("missing", "half_pair")


@pytest.mark.parametrize("half", [f"{ID}:", f":{SECRET}", ":"])
def test_half_a_basic_pair_is_missing(half: str) -> None:
    """A Basic value with an empty user or password is half a pair."""
    assert said([("Authorization", "Basic " + b64encode(half.encode()).decode())]) == "half_pair"


@pytest.mark.requirement("C-01")
@pytest.mark.parametrize("value", [ID, pytest.param(TOKEN, id="token")])
def test_a_lone_x_api_key_is_no_token(value: str) -> None:
    """``X-API-KEY`` by itself is half of something, even if it holds a whole token, unless a profile lists it."""
    assert said([("X-API-KEY", value)]) == "half_pair"
    assert said([("X-API-KEY", TOKEN)], reader=only("header", "key_secret", header="X-API-KEY")) == "header"


# -------------------------------------------------------------------------------------------------------- ambiguous


@pytest.mark.security("T-03")
@pytest.mark.requirement("X-05")
@EACH_HEADER
@pytest.mark.parametrize("second", ["", "x", pytest.param(TOKEN, id="token")])
def test_a_header_twice_is_ambiguous(sent: Sent, at: int, second: str) -> None:
    """A carrier that comes twice is refused in both orders, whatever the second one holds: never first wins."""
    again = (sent[at][0].swapcase(), second)

    assert said([*sent, again]) == "header_twice"
    assert said([again, *sent]) == "header_twice"


@pytest.mark.security("T-06")
@EACH_HEADER
def test_an_underscore_twin_is_ambiguous(sent: Sent, at: int) -> None:
    """A name with underscores for dashes, which some frontends fold into ours, is refused beside it and alone."""
    name, value = sent[at]
    if "-" in name:
        twin = (name.replace("-", "_"), value)

        assert said([*sent, twin]) == "underscore_twin"
        assert said([twin]) == "underscore_twin"


@pytest.mark.security("T-06")
def test_a_half_folded_twin_is_ambiguous() -> None:
    """A name in which only one of the dashes became an underscore is a twin as well."""
    assert said([("X_API-KEY", ID), ("X-API-SECRET", SECRET)]) == "underscore_twin"
    assert said([("X-API_SECRET", SECRET)]) == "underscore_twin"


@pytest.mark.security("T-04")
@pytest.mark.requirement("X-04")
@pytest.mark.parametrize(
    ("one", "two"),
    [
        pytest.param(one, two, id=f"{a} + {b}")
        for a, one in GOOD.items()
        for b, two in GOOD.items()
        if not {name.lower() for name, _ in one} & {name.lower() for name, _ in two}
    ],
)
def test_two_credentials_are_ambiguous(one: Sent, two: Sent) -> None:
    """Two credentials in one request are refused in every combination, even where both are of one key."""
    assert read([*one, *two]) == Unproven("ambiguous", "two_credentials")


@pytest.mark.security("T-04")
@FORMS
def test_a_whole_credential_and_half_of_another_are_ambiguous(sent: Sent) -> None:
    """A whole credential beside a stray half of another family is two credentials, not one and some noise."""
    stray = ("apiSecret", SECRET) if sent[0][0] != "apiKey" else ("X-API-SECRET", SECRET)

    assert said([*sent, stray]) == "two_credentials"


@pytest.mark.requirement("X-03")
@pytest.mark.parametrize(
    ("companions", "expected"),
    [
        ([("X-API-SECRET", SECRET)], "key_secret"),
        ([("x-api-user", "globex")], "malformed"),  # an id is no token
        ([("X-API-SECRET", SECRET), ("x-api-user", "globex")], "both_companions"),
        ([], "half_pair"),
    ],
)
def test_an_id_in_x_api_key_is_read_by_its_companion(companions: Sent, expected: str) -> None:
    """The public id in ``X-API-KEY`` is good beside a secret; beside a user name, both or nothing it is not."""
    assert said([("X-API-KEY", ID), *companions]) == expected


@pytest.mark.requirement("X-03", "C-01")
@pytest.mark.parametrize(
    ("companions", "expected"),
    [
        ([("x-api-user", "globex")], "key_user"),
        ([("X-API-SECRET", SECRET)], "malformed"),  # a token is no id
        ([("x-api-user", "globex"), ("X-API-SECRET", SECRET)], "both_companions"),
        ([], "half_pair"),
    ],
)
def test_a_token_in_x_api_key_is_read_by_its_companion(companions: Sent, expected: str) -> None:
    """The whole token in ``X-API-KEY`` is good beside a user name; beside a secret, both or nothing it is not."""
    assert said([("X-API-KEY", TOKEN), *companions]) == expected


def test_companions_alone_are_ambiguous() -> None:
    """Both companions without the header that they go with cannot be told apart either."""
    assert said([("X-API-SECRET", SECRET), ("x-api-user", "globex")]) == "both_companions"


@pytest.mark.security("T-03")
@EACH_HEADER
@pytest.mark.parametrize("comma", ["{0},{0}", "{0}, Bearer x", ",{0}", "{0},"])
def test_a_comma_list_is_ambiguous(sent: Sent, at: int, comma: str) -> None:
    """Several values folded into one header, as proxies do with repeats, are two credentials."""
    word, space, rest = sent[at][1].rpartition(" ")

    assert said(changed(sent, at, word + space + comma.format(rest))) == "two_credentials"


# ------------------------------------------------------------------------------------------------------------ in a URL


@pytest.mark.security("T-01")
@pytest.mark.requirement("F-04")
@FORMS
@pytest.mark.parametrize(
    "url",
    [
        "/things?token={}",
        "/things?a=1&b={}",
        "/things/{}",
        "/{}/things",
        "https://user:{}@api.example/things",
        "/things?next=/login%3Fkey%3D{}",
        "/things;key={}",
        "/things#{}",
    ],
)
@pytest.mark.parametrize("value", [TOKEN, SECRET], ids=["token", "secret"])
def test_a_credential_in_the_url_is_ambiguous(sent: Sent, url: str, value: str) -> None:
    """A token or a pair's secret anywhere in the address is refused, even beside a good credential in the headers."""
    assert read(sent, url.format(value)) == Unproven("ambiguous", "in_url")
    assert said([], url.format(value).encode()) == "in_url"


@pytest.mark.security("T-01")
@pytest.mark.requirement("F-04")
@pytest.mark.parametrize("name", CARRIERS)
@pytest.mark.parametrize(
    "url", ["/?{}=x", "/?a=1&{}=x", "/?a=1;{}=x", "/?{}", "/?{}=&b=2", "https://api.example/a/b?{}=x#end"]
)
def test_a_carriers_name_in_the_url_is_ambiguous(name: str, url: str) -> None:
    """A parameter that is named like a header of ours, in any spelling, is a credential in the address."""
    spellings = [name, name.lower(), name.upper(), name.replace("-", "_"), name.replace("-", ""), name.replace("-", "%2D")]  # fmt: skip

    assert {said(GOOD["bearer"], url.format(spelled)) for spelled in spellings} == {"in_url"}


@pytest.mark.security("T-01")
@pytest.mark.parametrize("times", [1, 2])
def test_a_percent_encoded_credential_is_found(times: int) -> None:
    """Encoding a token with percent signs, once or twice, does not hide it."""
    hidden = "".join(f"%{byte:02X}" for byte in TOKEN.encode())
    for _ in range(times - 1):
        hidden = quote(hidden)

    assert said([], f"/things?q={hidden}") == "in_url"


@pytest.mark.security("T-01")
def test_a_dotted_key_in_the_url_is_found() -> None:
    """A keyspace of dotted keys finds its own shape in an address; another keyspace does not take a file for one."""
    reader = Reader(profiles.load(profiles.source("atfinity")))

    assert said([], f"/files/{DOTTED}", reader=reader) == "in_url"
    assert said([], f"/files/{DOTTED}") == "no_carrier"


@pytest.mark.parametrize(
    "url",
    [
        "/",
        "",
        "/things?q=token&page=2",
        f"/keys/{ID}",
        f"/keys?id={ID}&name=CRM",
        "/things?key=1&apikeys=2&x-api=3&user=globex",
        "/things/acme_live_knot-a-token-but-long-enough-to-look",
        "/things?q=%zz%",
        "/caf\u00e9?q=\udcff",
    ],
)
def test_an_ordinary_url_is_no_credential(url: str) -> None:
    """A public id, a word like ``key`` and broken escapes in an address are no credential, and do no harm."""
    assert said(GOOD["bearer"], url) == "bearer"


# ---------------------------------------------------------------------------------------------------------- malformed


@pytest.mark.requirement("X-05")
@pytest.mark.security("T-10", "T-12", "T-14")
@EACH_HEADER
@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        "A" * 513,
        "A" * (1 << 20),
        '"{}"',
        "'{}'",
        "\u2018{}\u2019",
        "<{}>",
        "{}\n",
        "{}\0x",
        "{}\r\nX: y",
        "\n{}",
        "{} {}",
        "{}\u00e9",
        "\ufeff{}",
        "\udcff{}",
    ],
)
def test_a_value_that_is_no_credential_is_invalid(sent: Sent, at: int, wrong: str) -> None:
    """Quotes, brackets, control characters, other alphabets and any length: invalid, and never an error of ours."""
    name, value = sent[at]
    word, space, rest = value.rpartition(" ")
    found = read(changed(sent, at, word + space + wrong.replace("{}", rest)))

    if name != "x-api-user":  # that one is compared with the account's, and may be anything
        assert found == Unproven("invalid", "malformed")


@pytest.mark.parametrize("name", ["globex", "no such user", "\u00e9", "x" * 10_000])
def test_any_user_name_is_handed_on_to_be_compared(name: str) -> None:
    """What stands in ``x-api-user`` is part of the proof, and is not judged before it."""
    found = read(changed(GOOD["key_user"], 1, name))

    assert isinstance(found, Presented)
    assert found.username == name.encode("latin-1")


@pytest.mark.parametrize(
    "value",
    [ID, "!!!", BASIC[:-1], BASIC + "=", BASIC + "====", "=" + BASIC, BASIC.replace("Y", "-"), BASIC[:20] + "\n" + BASIC[20:],
     b64encode(b"\xff\xfe:\x00").decode(), b64encode(ID.encode()).decode(), b64encode(f"{ID}:{SECRET}:x".encode()).decode(),
     b64encode(f"{SECRET}:{ID}".encode()).decode(), b64encode(f" {ID}:{SECRET}".encode()).decode()],
)  # fmt: skip
def test_a_broken_basic_value_is_invalid(value: str) -> None:
    """A Basic value that is not strict base64 of ``id:secret`` is invalid."""
    assert said([("Authorization", f"Basic {value}")]) == "malformed"


@pytest.mark.parametrize("swap", ["key_secret", "camel_pair"])
def test_the_halves_of_a_pair_cannot_change_places(swap: str) -> None:
    """The secret where the id belongs and the id where the secret belongs is no credential."""
    (first, one), (second, two) = GOOD[swap]

    assert said([(first, two), (second, one)]) == "malformed"
    assert said([(first, one), (second, TOKEN)]) == "malformed"


# --------------------------------------------------------------------------------------- what is accepted, and only that


@pytest.mark.parametrize(
    "foreign",
    ["Bearer eyJhbGciOiJIUzI1NiJ9.e30.x", "Basic dXNlcjpwYXNz", "Digest username=a, realm=b", "Negotiate abc", "Api-Key x",
     "AWS4-HMAC-SHA256 Credential=a/b, Signature=c", "x", ""],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["key_secret", "camel_pair", "key_user"])
def test_a_hosts_own_authorization_is_not_looked_at(scheme: str, foreign: str) -> None:
    """A keyspace that takes no ``Authorization`` is not confused by one, nor by two."""
    stray = [("Authorization", foreign)] * 2

    assert said([*GOOD[scheme], *stray], reader=only(scheme)) == scheme
    assert said(stray, reader=only(scheme)) == "no_carrier"


@pytest.mark.parametrize("foreign", ["Digest username=a, realm=b", "Negotiate abc", "Basic dXNlcjpwYXNz"])
def test_another_word_in_authorization_is_not_looked_at(foreign: str) -> None:
    """Where Bearer is taken, an ``Authorization`` with a word that is not accepted does no harm to a pair."""
    reader = only("bearer", "key_secret")

    assert said([("Authorization", foreign), *GOOD["key_secret"]], reader=reader) == "key_secret"
    assert said([("Authorization", foreign)], reader=reader) == "no_carrier"
    assert said([("Authorization", foreign), ("X-API-KEY", ID)], reader=reader) == "half_pair"


@pytest.mark.requirement("X-01")
@pytest.mark.parametrize(("scheme", "sent"), GOOD.items())
def test_a_scheme_that_is_off_is_not_read(scheme: str, sent: Sent) -> None:
    """A host that turns a scheme off gets nothing out of it any more, and no harm from it either."""
    off = scheme.partition(",")[0]
    kept = tuple(name for name in SCHEMES if name not in (off, "header"))
    shared = {"key_secret": "half_pair", "key_user": "half_pair"}

    assert said(sent, reader=only(*kept)) == shared.get(off, "no_carrier")
    assert said(sent, reader=only(off, header="X-Token" if off == "header" else "")) == off


def test_a_parameter_named_like_a_foreign_carrier_is_the_hosts_own() -> None:
    """Names of carriers that a keyspace does not take may stand in an address."""
    assert said(GOOD["bearer"], "/things?apiKey=1&x-api-user=2", reader=only("bearer")) == "bearer"


def test_a_value_given_by_itself_is_read_like_one_in_a_header() -> None:
    """A token or a pair handed over without headers passes the same checks."""
    assert isinstance(Presented.of_token(TOKEN.encode()), Presented)
    assert isinstance(Presented.of_pair(ID.encode(), SECRET.encode()), Presented)
    unread = Presented.of_token(TOKEN.encode() + b"\n")
    assert isinstance(unread, Unproven)
    assert (unread.code, unread.reason) == ("invalid", "malformed")
    assert TOKEN not in repr(unread)
    assert Presented.of_token(b"") == Unproven("missing", "no_carrier")
    assert Presented.of_pair(ID.encode(), b"") == Unproven("missing", "half_pair")
    assert Presented.of_token(f"{TOKEN},{OTHER}".encode()) == Unproven("ambiguous", "two_credentials")


def test_accepted_sets_name_every_way() -> None:
    """People are told every header set that is accepted, both of ``api_key_auth`` and the profile's own name."""
    assert accepted_sets(EVERYTHING) == [
        "`Authorization: Bearer <token>`",
        "`Authorization: Basic base64(<id>:<secret>)`",
        "`X-API-KEY: <id>` and `X-API-SECRET: <secret>`",
        "`apiKey: <id>` and `apiSecret: <secret>`",
        "`x-api-key: <token>` and `x-api-user: <account username>`",
        "`Authorization: Api-Key <token>`",
        "`Api-Key: <token>`",
        "`X-Token: <token>`",
    ]


# ------------------------------------------------------------------------------------------------------- whatever comes

values = st.one_of(
    st.binary(max_size=80),
    st.sampled_from([TOKEN, ID, SECRET, DOTTED, f"Bearer {TOKEN}", f"Basic {BASIC}", f"Api-Key {TOKEN}", "globex", ""])
    .map(str.encode)
    .flatmap(lambda good: st.sampled_from([good, good + b",", b" " + good, good[:-1], good + b"\n", good * 9])),
)  # fmt: skip
names = st.one_of(
    st.sampled_from(CARRIERS).map(lambda name: name.lower().encode()),
    st.sampled_from(CARRIERS).map(lambda name: name.lower().replace("-", "_").encode()),
    st.binary(max_size=20),
)
requests = st.lists(st.tuples(names, values), max_size=5)


@pytest.mark.requirement("X-05")
@pytest.mark.security("T-14")
@given(requests, st.one_of(st.none(), st.binary(max_size=60), st.text(max_size=60)))
@settings(max_examples=1000, deadline=None)
def test_reading_never_raises(headers: list[tuple[bytes, bytes]], url: str | bytes | None) -> None:
    """Whatever bytes stand in a request, the answer is a credential or one of the three codes, never an exception."""
    found = READER.read(headers, url)

    assert isinstance(found, Presented) or found.code in ("missing", "ambiguous", "invalid")


@pytest.mark.security("T-03")
@given(requests)
@settings(max_examples=300, deadline=None)
def test_the_order_of_headers_makes_no_difference(headers: list[tuple[bytes, bytes]]) -> None:
    """The same headers the other way round get the same code: nothing is decided by who comes first."""
    one, two = READER.read(headers), READER.read(headers[::-1])

    assert getattr(one, "code", one) == getattr(two, "code", two)


@given(requests)
@settings(max_examples=300, deadline=None)
def test_what_is_not_a_carrier_makes_no_difference(headers: list[tuple[bytes, bytes]]) -> None:
    """Headers that no accepted scheme uses change nothing, whatever they hold, but for those that tell of a browser."""
    told = (b"authorization", b"origin", b"sec-fetch-site")
    reader, others = only("bearer"), [(n, v) for n, v in headers if n not in told]

    assert reader.read([(b"authorization", f"Bearer {TOKEN}".encode()), *others]) == READER.read(
        [(b"authorization", f"Bearer {TOKEN}".encode())]
    )
