"""Addresses at which a host's own screens had their keys: followed here, they lead to the console's. Pure."""

from urllib.parse import parse_qsl, urlsplit

from keywright.model import Keyspace


def leads(space: Keyspace, path: str, query: str) -> bool:
    """Whether an address is the keyspace's deep link: its path, and all that its query says."""
    if not space.deep_link:
        return False
    link = urlsplit(space.deep_link)
    asked = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    return path == "/" + link.path.lstrip("/") and set(parse_qsl(link.query, keep_blank_values=True)) <= set(
        asked
    )


__all__ = ["leads"]
