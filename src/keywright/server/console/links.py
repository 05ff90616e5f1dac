"""Deep links: from the address that a keyspace's host had for its page of keys to that page, signing in first."""

from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from keywright.errors import NotFound
from keywright.server.console import words
from keywright.server.console.visits import EVERYWHERE, Page, Visit
from keywright.server.deep_links import leads


def follow(visit: Visit) -> Response:
    """To the keys of the person's first account in the keyspace whose deep link it is; an operator chooses an account."""
    space = next((one for one in visit.spaces if leads(one, visit.path, visit.request.url.query)), None)
    if space is None:
        raise NotFound(words.NOT_FOUND)
    if visit.places:
        return visit.go(f"/console/@{quote(visit.places[0], safe='')}/{quote(space.name, safe='')}/keys")
    return visit.go(f"/console/{EVERYWHERE}/accounts" if visit.person.operator else "/console/")


#: The last of all pages: what no other path has taken.
PAGES: Final = (Page("GET", "/{link:path}", follow),)
