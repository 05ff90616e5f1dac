"""Whose word is believed about a client's address and scheme: that of named proxies, and nobody else's. Pure."""

from ipaddress import IPv6Address, ip_address

from keywright.model import Network


def canonical(text: str) -> str | None:
    """An address in its one spelling, an IPv4 address in IPv6 clothes as IPv4; ``None`` for what is no address."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def is_trusted(address: str | None, trusted: tuple[Network, ...]) -> bool:
    """Whether an address is one of a named proxy's."""
    if address is None:
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in trusted)


def client_address(peer: str | None, forwarded: list[bytes], trusted: tuple[Network, ...]) -> str | None:
    """The client's address: the peer's, or where the peer is a named proxy, the nearest hop that is not one.

    ``forwarded`` is every ``X-Forwarded-For`` in order. It is walked from its right end, which our own proxies wrote; an
    entry that is no address ends the walk with nothing known, so that an allow-list refuses.
    """
    address = canonical(peer or "")
    if not trusted or not is_trusted(address, trusted):
        return address
    hops = [hop for value in forwarded for hop in value.decode("latin-1").split(",")]
    for hop in reversed(hops):
        address = canonical(hop)
        if address is None or not is_trusted(address, trusted):
            return address
    return address
