"""A call by a customer's key, proven and allowed: what it asks, how far it reaches, and how it is carried out."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import msgspec

from keywright.desk.grants import Reach
from keywright.desk.listing import is_secret
from keywright.desk.once import Once, read
from keywright.errors import Invalid, NotFound
from keywright.installation import Installation
from keywright.model import Actor, KeyRecord, Keyspace
from keywright.server.bodies import BODY_LIMIT, CutOff, TooLarge, accept_json, read_body, refuse_twins
from keywright.server.problems import Receive, Scope, Send, refuse_body, respond_json, respond_problem


class Endpoint(NamedTuple):
    """One thing that can be asked: the scope that it needs, the body that it takes, and what carries it out."""

    route: str
    scope: str | None
    run: "Callable[[Call, Any], Reply] | None"
    takes: Any = None  # the shape of the body, and none where there is none
    optional: bool = False  # the body may be left out
    id_in_query: bool = False


class Reply(NamedTuple):
    """What is answered."""

    document: dict[str, Any]
    status: int = 200
    headers: Sequence[tuple[bytes, bytes]] = ()


class Call(msgspec.Struct, frozen=True):
    """A proven call: whose key it is, and what came with it."""

    opened: Installation
    base_url: str
    record: KeyRecord
    keyspace: Keyspace
    actor: Actor
    scope: Scope
    key_id: str

    @property
    def reach(self) -> Reach:
        """A key gets at the keys of its own account, keyspace and environment; no other exists for it."""
        record = self.record
        return Reach(account=record.account, keyspace=record.keyspace, environment=record.environment)

    @property
    def now(self) -> int:
        """The instant of this call."""
        return self.opened.clock()

    def parameter(self, name: str) -> str | None:
        """A parameter of the address. Raises ``Invalid`` where it stands twice."""
        query = self.scope["query_string"].decode("latin-1")
        try:
            values = parse_qs(query, keep_blank_values=True, max_num_fields=20).get(name, [])
        except ValueError:
            raise Invalid("are too many", path="parameters") from None
        if len(values) > 1:
            raise Invalid("stands more than once", path=name)
        return values[0] if values else None

    def limit(self, *, default: int, most: int) -> int:
        """The parameter ``limit``. Raises ``Invalid``."""
        text = self.parameter("limit")
        if text is None:
            return default
        if not text.isascii() or not text.isdecimal() or len(text) > 6 or not 1 <= int(text) <= most:
            raise Invalid(f"is from 1 to {most}", path="limit")
        return int(text)

    def once(self, route: str, asked: Any) -> Once | None:
        """What identifies a creation that came under an ``Idempotency-Key``. Raises ``Invalid``."""
        headers = self.scope["headers"]
        values = [value.decode("latin-1") for name, value in headers if name == b"idempotency-key"]
        return read(values, self.record.id, route, asked)

    async def carry_out(self, endpoint: Endpoint, receive: Receive, send: Send) -> None:
        """Read the body, do what is asked beside the event loop, and answer. Raises what the verb raises."""
        try:
            body = await read_body(receive, BODY_LIMIT) if endpoint.takes is not None else b""
            asked = None
            if endpoint.takes is not None and (body or not endpoint.optional):
                if not accept_json(self.scope["headers"]):
                    detail = "Send Content-Type: application/json."
                    await respond_problem(self.scope, send, "unsupported_media_type", detail)
                    return
                asked = msgspec.json.decode(body, type=endpoint.takes)
                refuse_twins(body)
        except TooLarge:
            await respond_problem(self.scope, send, "too_large", f"The body may have {BODY_LIMIT} bytes.")
        except CutOff:
            return
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as wrong:
            await refuse_body(self.scope, send, wrong)
        else:
            assert endpoint.run is not None
            reply = await asyncio.to_thread(endpoint.run, self, asked)
            await respond_json(self.scope, send, reply.status, reply.document, headers=reply.headers)


REPLAYED: Final = ((b"idempotency-replayed", b"true"),)


def public_id(given: str | None, *, path: str) -> str:
    """The id of a key, as it was given. Raises ``Invalid`` for a secret: it is not ours to read there."""
    if not given:
        raise Invalid("is needed", path=path)
    if is_secret(given):
        raise Invalid("is the key itself; send its public id, which ends before the last _", path=path)
    if len(given) > 60 or not given.isascii() or not given.replace("_", "").isalnum():
        raise NotFound("there is no such key")
    return given
