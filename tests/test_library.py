"""The library, from a key's making to its end."""

import pytest

from conftest import bearer, make
from keywright import Issued, Keywright

pytestmark = pytest.mark.stores


@pytest.mark.requirement("G-04", "G-10", "B-19")
def test_a_key_works_as_soon_as_it_is_made(kw: Keywright, key: Issued) -> None:
    """One request with static headers passes the moment ``create`` has returned."""
    verdict = kw.verify(bearer(key), keyspace="every", environment="production", method="POST")

    assert verdict.code == "ok"
    assert verdict.key is not None
    assert (verdict.key.id, verdict.key.account) == (key.key.id, "globex")


def test_a_changed_character_is_invalid(kw: Keywright, key: Issued) -> None:
    """A token with one character changed is refused by its checksum, without a look-up in the store."""
    token = key.credential.token.reveal()
    wrong = token[:-1] + ("A" if token[-1] != "A" else "B")
    before = kw.installation.lookup.statements
    kw.verify({}, keyspace="every", environment="production")
    before = kw.installation.lookup.statements

    verdict = kw.verify({"Authorization": f"Bearer {wrong}"}, keyspace="every", environment="production")

    assert (verdict.code, verdict.reason, verdict.key) == ("invalid", "checksum", None)
    assert kw.installation.lookup.statements == before


@pytest.mark.requirement("X-12")
def test_invalidate_then_delete(kw: Keywright) -> None:
    """An invalidated key says so to whoever proves it; a deleted one is like any unknown key to the client."""
    key = make(kw)

    kw.keys.invalidate(key.key.id)
    assert kw.verify(bearer(key), keyspace="every", environment="production").code == "invalidated"
    kw.keys.delete(key.key.id)
    verdict = kw.verify(bearer(key), keyspace="every", environment="production")

    assert (verdict.code, verdict.reason) == ("invalid", "deleted")
