"""What stays to be seen of a key once it was made: its id, which no other key has, and whose application it is for."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import IntegrityError

from conftest import make
from keywright import Issued, Keywright
from keywright.store import keys as stored
from people import as_person, begin
from surfaces import Door, manager, server

pytestmark = pytest.mark.stores


@pytest.fixture
def door(kw: Keywright) -> Iterator[Door]:
    """The server."""
    with Door(server(kw)) as opened:
        yield opened


@pytest.mark.requirement("F-18", "F-21")
def test_the_id_stays_to_be_seen(door: Door, kw: Keywright) -> None:
    """Every key of the account is listed with its whole id, now and later; of the stranger's none is."""
    made = [make(kw, keyspace="fullwhere", name=f"CRM {n}") for n in range(3)]
    foreign = make(kw, keyspace="fullwhere", account="initech")
    headers = as_person(kw, begin(kw, "admin"))

    for _ in range(2):
        listed = door.get("/v1/keys?keyspace=fullwhere", headers).json["items"]
        assert {one["id"] for one in listed} == {one.key.id for one in made}
    assert door.get(f"/v1/keys/{foreign.key.id}", headers).status == 404


@pytest.mark.requirement("G-01")
def test_a_key_is_one_of_its_kind(kw: Keywright) -> None:
    """Keys made at the same moment all differ, and an id that is taken cannot be written again."""
    made: list[str] = []
    barrier = threading.Barrier(8)

    def create() -> None:
        barrier.wait()
        made.extend(make(kw).key.id for _ in range(10))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == len(made) == 80
    with kw.installation.database.read() as connection:
        row = connection.exec_driver_sql("SELECT * FROM keys LIMIT 1").mappings().one()
    values = {name: value for name, value in row.items() if name not in ("scopes", "limits", "allowed_ips")}
    values |= {"scopes": [], "limits": [], "allowed_ips": [], "metadata": {}, "binding": None}
    with pytest.raises(IntegrityError), kw.installation.database.write() as tx:
        stored.add(tx, values, b"x" * 32, 1, {})


@pytest.mark.requirement("G-22")
def test_a_key_says_which_application_it_is_for(door: Door, kw: Keywright) -> None:
    """Keys carry the name of the third party's application: in the list, as a filter, and in what was used by whom."""
    zapier, make_com = (make(kw, keyspace="gallabox", application=name) for name in ("Zapier", "Make"))
    for issued, times in ((zapier, 3), (make_com, 1)):
        for _ in range(times):
            assert kw.verify(pair_of(issued), keyspace="gallabox", environment="production", method="GET")
    headers = manager(kw)

    listed = door.get("/v1/keys?keyspace=gallabox&application=Zapier", headers).json["items"]
    assert [(one["id"], one["application"]) for one in listed] == [(zapier.key.id, "Zapier")]
    used = door.get("/v1/usage?by=total&group=application&keyspace=gallabox", headers).json["items"]
    assert {one["value"]: one["count"] for one in used} == {"Zapier": 3, "Make": 1}


def pair_of(issued: Issued) -> dict[str, str]:
    """The headers of Gallabox's pair."""
    assert issued.credential.secret is not None
    return {"apiKey": issued.key.id, "apiSecret": issued.credential.secret.reveal()}
