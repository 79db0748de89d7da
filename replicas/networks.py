"""Addresses of clients, and networks that are trusted: plain functions."""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SHORTEST = {4: 8, 6: 7}  # bits of a prefix: 10.0.0.0/8 and fc00::/7 are the widest networks of one owner


def address(text: str) -> Address | None:
    """The address a socket's peer has; None for what is none (a Unix socket, a name).

    On a socket that takes both families an IPv4 client is `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2): it is that
    IPv4 address.
    """
    try:
        found = ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, ipaddress.IPv6Address) else found


def is_too_wide(network: Network) -> bool:
    """Whether a network covers so much of the Internet that trusting it is trusting everybody."""
    return network.prefixlen < _SHORTEST[network.version]
