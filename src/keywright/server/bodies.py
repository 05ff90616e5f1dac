"""Request bodies: read within a limit, and only of the kind that is understood."""

from keywright.server.problems import Pairs, Receive


class TooLarge(Exception):  # said in the past tense, like the others
    """A body is larger than its door allows."""


async def read_body(receive: Receive, limit: int) -> bytes:
    """Read a whole body of at most ``limit`` bytes. Raises ``TooLarge`` as soon as it is more."""
    message = await receive()
    body: bytes = message.get("body", b"")
    if len(body) > limit:
        raise TooLarge
    if not message.get("more_body", False):
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await receive()
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)


def accept_json(headers: Pairs) -> bool:
    """Whether the body is said, once, to be JSON."""
    said = [value for name, value in headers if name == b"content-type"]
    return len(said) == 1 and said[0].partition(b";")[0].strip().lower() == b"application/json"
