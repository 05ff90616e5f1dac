"""Keyspace definitions: the six that ship, and every way in which one can be refused."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import EVERY, bearer, make
from keywright import Conflict, Keywright, profiles
from keywright.credential import OTHERS_PREFIXES
from keywright.errors import ProfileError
from keywright.model import ExpiryPolicy, Keyspace, Limit
from keywright.profiles import SHIPPED, load, source
from keywright.schemes import SCHEMES


def acme(toml: str = "") -> Keyspace:
    """Load a definition of the keyspace acme with more TOML in it."""
    return load(f'name = "acme"\n{toml}')


def refused(toml: str) -> ProfileError:
    """Load a definition that must be refused, and say how it was."""
    with pytest.raises(ProfileError) as found:
        load(toml)
    return found.value


# ---------------------------------------------------------------------------------------------------- the six that ship


@pytest.mark.requirement("X-01", "C-12")
@pytest.mark.parametrize(
    ("profile", "schemes"),
    [
        ("default", ("bearer", "basic", "key_secret", "camel_pair")),
        ("fullwhere", ("key_secret",)),
        ("partna", ("key_user",)),
        ("atfinity", ("api_key_auth",)),
        ("gallabox", ("camel_pair",)),
        ("bizmagnets", ("key_secret", "camel_pair")),
    ],
)
def test_each_profile_accepts_its_systems_headers(profile: str, schemes: tuple[str, ...]) -> None:
    """Every profile that ships loads, under its own name, with the header schemes of its system."""
    loaded = load(source(profile))

    assert (loaded.name, loaded.prefix, loaded.schemes) == (profile, profile, schemes)
    assert loaded.format == ("dotted" if profile == "atfinity" else "standard")


def test_the_shipped_profiles_are_these_six() -> None:
    """The list of what ships is complete, and a name that is not in it is refused by naming those that are."""
    assert set(SHIPPED) == {"default", "fullwhere", "partna", "atfinity", "gallabox", "bizmagnets"}
    with pytest.raises(ProfileError, match="these ship: default, fullwhere"):
        source("../secrets")


@pytest.mark.requirement("C-05", "B-22")
@pytest.mark.parametrize("profile", SHIPPED)
def test_environments_of_the_profiles(profile: str) -> None:
    """Partna has two environments, the others development, staging and production."""
    three = {"development": "dev", "staging": "stg", "production": "live"}
    expected = {"staging": "stg", "production": "live"} if profile == "partna" else three

    assert load(source(profile)).environments == expected


@pytest.mark.requirement("C-04", "G-17")
@pytest.mark.parametrize("profile", SHIPPED)
def test_access_that_is_left_out(profile: str) -> None:
    """In gallabox and default access must be chosen each time; elsewhere a key gets all, and the profile says so."""
    loaded = load(source(profile))
    chosen = profile in ("gallabox", "default")

    assert loaded.access.classes == ("all", "read_only", "restricted")
    assert loaded.access.default == (None if chosen else "all")
    assert ("access" in loaded.fields.required) == chosen


@pytest.mark.requirement("C-03", "X-11", "A-05")
@pytest.mark.parametrize("profile", SHIPPED)
def test_a_name_is_required_and_a_description_never(profile: str) -> None:
    """Every profile wants a name, and none wants a description; atfinity and BizMagnets ask for nothing but the name."""
    fields = load(source(profile)).fields

    assert "name" in fields.ask
    assert "name" in fields.required
    assert "description" not in fields.required
    assert (fields.ask == ("name",)) == (profile in ("atfinity", "bizmagnets"))


@pytest.mark.requirement("X-24", "C-02")
@pytest.mark.parametrize(
    ("profile", "start", "submit", "path"),
    [
        ("fullwhere", "Generate an API Key", "Create", ("Settings", "Connectivity", "Developers")),
        ("atfinity", "Create API Key", "Create API-Key", ("Integrations", "API Keys")),
        ("gallabox", "+ Add new", "Add API Key", ("Settings", "API keys")),
        ("bizmagnets", "+Add New API Key", "Submit", ("Integration", "API Keys")),
    ],
)
def test_words_and_paths_are_the_hosts(profile: str, start: str, submit: str, path: tuple[str, ...]) -> None:
    """Each system keeps its own labels and its own way through the menus; atfinity's "Revoke" is our delete."""
    loaded = load(source(profile))

    assert (loaded.labels["start"], loaded.labels["submit"], loaded.navigation) == (start, submit, path)
    assert loaded.labels.get("delete") == ("Revoke" if profile == "atfinity" else None)


def test_only_partna_has_full_self_service() -> None:
    """Customers manage their keys with a key in partna only, where errors are a ``message`` too."""
    full = [profile for profile in SHIPPED if load(source(profile)).self_service == "full"]
    messages = [profile for profile in SHIPPED if load(source(profile)).error_shape == "message"]

    assert (full, messages) == (["partna"], ["partna"])


# ------------------------------------------------------------------------------------------------------- one's own


def test_a_name_is_enough() -> None:
    """A definition of one line gets four schemes, three environments, and access to be chosen each time."""
    loaded = acme()

    assert (loaded.title, loaded.prefix, loaded.format) == ("Acme", "acme", "standard")
    assert loaded.schemes == ("bearer", "basic", "key_secret", "camel_pair")
    assert list(loaded.environments) == ["development", "staging", "production"]
    assert (loaded.access.default, loaded.expiry, loaded.self_service) == (None, ExpiryPolicy(), "off")


@pytest.mark.requirement("X-23")
def test_scopes_come_from_the_host() -> None:
    """A host names its own permissions and says of each whether it reads."""
    loaded = acme('[scopes]\n"tea:pour" = {title = "Pour"}\n"tea:smell" = {title = "Smell", reads = true}')

    assert {name: scope.reads for name, scope in loaded.scopes.items()} == {
        "tea:pour": False,
        "tea:smell": True,
    }
    assert set(loaded.scopes).isdisjoint(load(EVERY).scopes)


def test_plans_gates_and_spans_are_read() -> None:
    """Limits of the keyspace and of its plans, gates and spans come out as they stand in the TOML."""
    loaded = acme(
        'limits = ["5/day", {kind = "rate", limit = 3, per = 10, name = "burst"}]\n'
        '[expiry]\ndefault = "30d"\nlongest = "1y"\n[plans.small]\ntitle = "Small"\nlimits = ["credits:7"]'
    )
    rules = load(EVERY).gates["shop"].rules

    assert loaded.limits == (Limit("quota-day", "quota", 5, "day"), Limit("burst", "rate", 3, 10))
    assert loaded.plans["small"].limits == (Limit("credits", "credits", 7),)
    assert loaded.expiry == ExpiryPolicy(2_592_000, 31_536_000)
    assert [(rule.path, rule.methods, rule.scopes, rule.cost) for rule in rules] == [
        ("/things/*", ("GET",), ("things:read",), 1),
        ("/things", ("POST",), ("things:write",), 2),
    ]


def test_every_scheme_can_be_listed() -> None:
    """A keyspace may accept every scheme at once, the profile's own header among them."""
    assert load(EVERY).schemes == tuple(SCHEMES)
    assert acme('schemes = ["header"]\nheader = "X-API-KEY"').header == "X-API-KEY"


def test_the_management_keyspace_is_sound() -> None:
    """Our own keyspace accepts Bearer alone, in one environment, and only restricted keys."""
    own = profiles.management()

    assert (own.prefix, own.schemes, own.environments) == ("kw", ("bearer",), {"production": "live"})
    assert own.access.classes == ("restricted",)


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.security("K-08")
@pytest.mark.parametrize("prefix", sorted(OTHERS_PREFIXES))
def test_another_vendors_prefix_is_refused(prefix: str) -> None:
    """No keyspace can have a prefix under which another vendor's keys are known, as its prefix or by its name."""
    assert refused(f'name = "acme"\nprefix = "{prefix}"').path == "prefix"
    assert refused(f'name = "{prefix}"').path == "name"


@pytest.mark.security("K-08")
def test_the_list_of_prefixes_holds_the_known_ones() -> None:
    """The prefixes that the requirement names are all on the list."""
    named = "sk pk rk ghp gho ghs npm pypi xoxb glpat akia whsec cfut"

    assert set(named.split()) <= OTHERS_PREFIXES


@pytest.mark.parametrize(
    "prefix", ["a", "abcdefghijklm", "Acme", "4cme", "ac_me", "ac-me", "acm\u00e9", "acme ", "acme\\n"]
)
def test_a_prefix_of_another_shape_is_refused(prefix: str) -> None:
    """A prefix is 2 to 12 small letters and digits, and begins with a letter."""
    assert refused(f'name = "acme"\nprefix = "{prefix}"').path == "prefix"
    assert [acme(f'prefix = "{good}"').prefix for good in ("ab", "a2345678901b")] == ["ab", "a2345678901b"]


def test_reserved_names_are_refused() -> None:
    """The keyspace and the prefix of management keys are our own."""
    assert refused('name = "keywright"').path == "name"
    assert refused('name = "acme"\nprefix = "kw"').path == "prefix"
    assert refused('name = "kw"').path == "name"


def test_a_name_that_cannot_be_a_prefix_says_what_to_set() -> None:
    """A name may be longer than a prefix, and then a prefix has to be given."""
    wrong = refused('name = "my-long-product-name"')

    assert wrong.path == "name"
    assert "set `prefix`" in wrong.reason
    assert load('name = "my-long-product-name"\nprefix = "mlpn"').prefix == "mlpn"


@pytest.mark.parametrize(
    ("toml", "path"),
    [
        ("prefx = 'x'", "prefx"),
        ("title = 5", "title"),
        (r'title = "a\r\nX: y"', "title"),
        ("format = 'jwt'", "format"),
        ("schemes = 'bearer'", "schemes"),
        ("schemes = []", "schemes"),
        ("schemes = [5]", "schemes[0]"),
        ("schemes = ['bearer', 'cookie']", "schemes[1]"),
        ("schemes = ['bearer', 'bearer']", "schemes[1]"),
        ("schemes = ['bearer', 'key_secret']\nformat = 'dotted'", "schemes[1]"),
        ("schemes = ['basic']\nformat = 'dotted'", "schemes[0]"),
        ("schemes = ['camel_pair']\nformat = 'dotted'", "schemes[0]"),
        ("schemes = ['header']", "header"),
        ("header = 'X-Token'", "header"),
        ("schemes = ['header']\nheader = 'X Token'", "header"),
        ("schemes = ['header']\nheader = 'X_Token'", "header"),
        ("schemes = ['header']\nheader = 'X-Token:'", "header"),
        ("schemes = ['header']\nheader = 'Authorization'", "header"),
        ("schemes = ['header']\nheader = 'Cookie'", "header"),
        ("schemes = ['header']\nheader = 'X-API-SECRET'", "header"),
        ("schemes = ['header', 'api_key_auth']\nheader = 'Api-Key'", "header"),
        ("environments = {}", "environments"),
        ("environments = {Production = 'live'}", "environments.Production"),
        ("environments = {production = 'l'}", "environments.production"),
        ("environments = {production = 'LIVE'}", "environments.production"),
        ("environments = {production = 'live2'}", "environments.production"),
        ("environments = {production = 'production'}", "environments.production"),
        ("environments = {a = 'live', b = 'live'}", "environments.b"),
        ("environments = {a = 'live', b = 5}", "environments.b"),
        ("[scopes]\n'Contacts:Read' = {title = 'x'}", "scopes.Contacts:Read"),
        ("[scopes]\n'contacts read' = {title = 'x'}", "scopes.contacts read"),
        ("[scopes]\n'contacts:' = {title = 'x'}", "scopes.contacts:"),
        ("[scopes]\n'a\"b' = {title = 'x'}", 'scopes.a"b'),
        ("[scopes]\n'keys:write' = {title = 'x'}", "scopes.keys:write"),
        ("[scopes]\n'contacts:read' = {tittle = 'x'}", "scopes.contacts:read.tittle"),
        ("[scopes]\n'contacts:read' = {}", "scopes.contacts:read.title"),
        ("[scopes]\n'contacts:read' = {title = 5}", "scopes.contacts:read.title"),
        ("[scopes]\n'contacts:read' = 'x'", "scopes.contacts:read"),
        ("[scopes]\n'a:read' = {title = 'x'}\n'b:read' = {title = 'x', reads = 'yes'}", "scopes.b:read.reads"),
        ("scopes = ['contacts:read']", "scopes"),
        ("[access]\nclasses = []", "access.classes"),
        ("[access]\nclasses = ['all', 'all']", "access.classes"),
        ("[access]\nclasses = ['all', 'none']", "access.classes[1]"),
        ("[access]\nclasses = ['read_only']\ndefault = 'all'", "access.default"),
        ("[access]\ndefault = 'restricted'", "access.default"),
        ("[access]\ndefualt = 'all'", "access.defualt"),
        ("[expiry]\ndefault = 'soon'", "expiry.default"),
        ("[expiry]\ndefault = '0s'", "expiry.default"),
        ("[expiry]\ndefault = 30", "expiry.default"),
        ("[expiry]\ndefault = '999999999y'", "expiry.default"),
        ("[expiry]\nlongest = '1.5d'", "expiry.longest"),
        ("[expiry]\nlongest = '30d'", "expiry.default"),
        ("[expiry]\nlongest = '30d'\ndefault = '31d'", "expiry.default"),
        ("[fields]\nask = ['name', 'colour']", "fields.ask[1]"),
        ("[fields]\nrequired = ['nmae']", "fields.required[0]"),
        ("[fields]\nasks = ['name']", "fields.asks"),
        ("limits = ['10/fortnight']", "limits[0]"),
        ("limits = ['10/day', 'rate:1/0s']", "limits[1].per"),
        ("limits = ['10/day', '20/day']", "limits[1]"),
        ("limits = [{kind = 'quota', limit = -1, per = 'day'}]", "limits[0].limit"),
        ("limits = [{kind = 'quota', limt = 1, per = 'day'}]", "limits[0]"),
        ("limits = [5]", "limits[0]"),
        ("[plans.Gold]\ntitle = 'x'", "plans.Gold"),
        ("[plans.gold]", "plans.gold.title"),
        ("[plans.gold]\ntitle = 'x'\nlimits = ['x']", "plans.gold.limits[0]"),
        ("[plans.gold]\ntitle = 'x'\nlimits = [5]", "plans.gold.limits[0]"),
        ("[plans.gold]\ntitle = 'x'\nprice = 5", "plans.gold.price"),
        ("[gates.shop]", "gates.shop.environment"),
        ("[gates.'a.b']\nenvironment = 'production'", "gates.a.b"),
        ("[gates.shop]\nenvironment = 'moon'", "gates.shop.environment"),
        ("[gates.shop]\nenvironment = 'production'\nrules = 5", "gates.shop.rules"),
        ("[gates.shop]\nenvironment = 'production'\n[[gates.shop.rules]]\npath = '/x'\n[[gates.shop.rules]]\n", "gates.shop.rules[1].path"),
        ("[gates.shop]\nenvironment = 'production'\n[[gates.shop.rules]]\npath = '/x'\nsopes = []", "gates.shop.rules[0].sopes"),
        ("[gates.shop]\nenvironment = 'production'\n[[gates.shop.rules]]\npath = 'x'", "gates.shop.rules[0].path"),
        ("[gates.shop]\nenvironment = 'production'\n[[gates.shop.rules]]\npath = '/x/../y'", "gates.shop.rules[0].path"),
        ("[gates.shop]\nenvironment = 'production'\n[[gates.shop.rules]]\npath = '/x'\nmethods = ['get']", "gates.shop.rules[0].methods"),
        ("[gates.shop]\nenvironment = 'production'\n[[gates.shop.rules]]\npath = '/x'\nscopes = ['x:y']", "gates.shop.rules[0].scopes"),
        ("[gates.shop]\nenvironment = 'production'\n[[gates.shop.rules]]\npath = '/x'\ncost = -1", "gates.shop.rules[0].cost"),
        ("[gates.shop]\nenvironment = 'production'\n[[gates.shop.rules]]\npath = '/x'\ncost = 1.5", "gates.shop.rules[0].cost"),
        ("self_service = 'some'", "self_service"),
        ("errors = 'xml'", "errors"),
        ("rate_headers = 'yes'", "rate_headers"),
        ("url = 'api.example'", "url"),
        ("url = 'javascript:alert(1)'", "url"),
        ("url = 'https://a b'", "url"),
        ("[labels]\nbutton = 'x'", "labels.button"),
        ("[labels]\nnoun = 5", "labels.noun"),
        ("navigation = 'Settings'", "navigation"),
        ("deep_link = 5", "deep_link"),
    ],
)  # fmt: skip
def test_a_definition_that_cannot_be_is_refused(toml: str, path: str) -> None:
    """Every kind of mistake is refused with the path of the very key at fault, and the reason beside it."""
    wrong = refused(f'name = "acme"\n{toml}')

    assert wrong.path == path
    assert str(wrong) == f"{path}: {wrong.reason}"
    assert wrong.reason


@pytest.mark.parametrize(
    ("toml", "path"),
    [
        ("", "name"),
        ("title = 'x'", "name"),
        ("name = 5", "name"),
        ("name = ''", "name"),
        ("name = 'Acme'", "name"),
        ("name = 'ac me'", "name"),
        ("name = 'acme.live'", "name"),
    ],
)
def test_a_definition_without_a_good_name_is_refused(toml: str, path: str) -> None:
    """A keyspace needs a name of small letters, digits and dashes."""
    assert refused(toml).path == path


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ('name = "acme"\ntitle = \n', 2),
        ('name = "acme"\n\n[scopes\n', 3),
        ('name = "acme"\nname = "acme"\n', 2),
        ('name = "acme"\ntitle = "x\n', 2),
        ('name = "acme"\ntitle = 2021-02-30\n', 2),
        ('name = "acme"\ntitle = "\0"\n', 2),
    ],
)
def test_broken_toml_names_the_line(toml: str, line: int) -> None:
    """Where the TOML itself is broken, the refusal says at which line."""
    assert f"line {line}," in str(refused(toml))


@pytest.mark.security("T-47")
@pytest.mark.parametrize(
    "toml", ["x = " + "9" * 5000, "x = " + "[" * 5000, "x" * 100_000, "\ufffe", "a." * 5000 + "b = 1"]
)
def test_hostile_toml_is_refused_like_any_other(toml: str) -> None:
    """Numbers without end, deep nesting and plain garbage are a refusal, and not an error of ours."""
    assert str(refused(toml))


@pytest.mark.security("R-37")
@pytest.mark.stores
def test_a_bad_definition_under_load_changes_nothing(kw: Keywright) -> None:
    """Definitions that are refused, one after another while four threads verify, fail no request, and the old one stays; a good
    one then holds at the next call, under the same load."""
    bad = {
        "not TOML": "name = ",
        "nothing": "",
        "another prefix": EVERY.replace('name = "every"', 'name = "every"\nprefix = "other"', 1),
        "an unknown scheme": EVERY.replace('"bearer"', '"carrier-pigeon"', 1),
        "an unknown key": EVERY.replace('title = "Every"', 'titel = "Every"', 1),
        "bounds that are absurd": EVERY + "\n[misuse.guessed]\ntimes = 0\n",
    }
    place = {"keyspace": "every", "environment": "production", "method": "GET"}
    key, codes, stop = make(kw), Counter[str](), threading.Event()
    before = kw.keyspaces.get("every")

    def load() -> Counter[str]:
        found: Counter[str] = Counter()
        while not stop.is_set():
            found[kw.verify(bearer(key), **place).code] += 1
        return found

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load) for _ in range(4)]
        for source in bad.values():
            with pytest.raises((ProfileError, Conflict)) as told:
                kw.keyspaces.apply(source)
            assert str(told.value)
            assert kw.keyspaces.get("every") == before
        without = EVERY.replace('"bearer", ', "", 1)
        kw.keyspaces.apply(without)
        assert kw.verify(bearer(key), **place).code == "missing"
        kw.keyspaces.apply(EVERY)
        assert kw.verify(bearer(key), **place).code == "ok"
        stop.set()
        for one in loads:
            codes += one.result()

    assert set(codes) <= {"ok", "missing"}
    assert codes["ok"] > 0
    assert [entry["action"] for entry in kw.installation.trail.list(target="every", limit=2).items] == [
        "keyspace.apply"
    ] * 2


@pytest.mark.screen("U-13")
@pytest.mark.parametrize(
    ("preset", "wrong"),
    [
        ('scopes = ["a:read"]', "presets.reporting.title: .*missing"),
        ('title = "R"', "presets.reporting.scopes: .*missing"),
        ('title = " "\nscopes = ["a:read"]', "presets.reporting.title: is what its button says"),
        ('title = "R"\nscopes = []', "presets.reporting.scopes: names none"),
        (
            'title = "R"\nscopes = ["a:read", "b:read"]',
            r"presets.reporting.scopes\[1\]: 'b:read' is not in scopes",
        ),
        (
            'title = "R"\nscopes = ["keys:read"]',
            r"presets.reporting.scopes\[0\]: 'keys:read' is not in scopes",
        ),
        (
            'title = "R"\nscopes = ["a:read", "a:read"]',
            r"presets.reporting.scopes\[1\]: 'a:read' stands twice",
        ),
        ('title = "R"\nscopes = ["a:read"]\nmore = 1', "presets.reporting.more: .*unknown"),
        (
            'title = "R"\nscopes = ["a:read"]\n[access]\nclasses = ["all"]',
            "presets.reporting: is for restricted keys",
        ),
    ],
)
def test_a_preset_that_cannot_be_is_refused(preset: str, wrong: str) -> None:
    """Scopes that are not defined, none, or one twice; without a title; where no key can be restricted."""
    source = f'name = "x"\nprefix = "xyz"\n[scopes]\n"a:read" = {{ title = "Read" }}\n[presets.reporting]\n{preset}\n'
    with pytest.raises(ProfileError, match=wrong):
        load(source)
