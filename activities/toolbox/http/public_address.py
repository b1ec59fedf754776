"""Addresses on the open internet, by the IANA registries of special-purpose addresses (RFC 6890)."""

import ipaddress
from collections.abc import Callable, Iterator
from typing import NamedTuple

_IPV4_NOT_PUBLIC = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by carriers
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, the metadata services of clouds among them
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocol assignments
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, broadcast
        ),
    )
)
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that IANA gives to networks; what lies outside is loopback, local, multicast, SRv6, discarded or reserved."""
_IPV6_NOT_PUBLIC = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
_ISATAP = 0x5EFE
_UNIVERSAL_AND_GROUP = 0x0300
"""The bits of an ISATAP interface id that say whether its IPv4 address is unique, and whether it is a group's."""


class Carrier(NamedTuple):
    """A prefix whose addresses stand for IPv4 ones: packets to them end at the IPv4 address."""

    network: ipaddress.IPv6Network
    carried: Callable[[int], int]
    """The IPv4 address in the 128 bits."""


CARRIERS = (
    Carrier(ipaddress.IPv6Network("::ffff:0:0/96"), lambda bits: bits),  # mapped
    Carrier(ipaddress.IPv6Network("64:ff9b::/96"), lambda bits: bits),  # NAT64, the well-known prefix
    Carrier(ipaddress.IPv6Network("2002::/16"), lambda bits: bits >> 80),  # 6to4
)
"""Those that may lead to the open internet. IPv4-compatible (::/96), IPv4-translated (::ffff:0:0:0/96), NAT64 for local
use (64:ff9b:1::/48, where the IPv4 address may stand in six places) and Teredo (2001::/32) carry addresses too, and are
never public. A network's own NAT64 prefix cannot be told from other addresses."""


def is_public(address: str) -> bool:
    """Return whether an address is on the open internet; of one that carries an IPv4 address, both must be."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return _is_public_ipv4(ip)
    carrier = next((carrier for carrier in CARRIERS if ip in carrier.network), None)
    if carrier is None and (ip not in _IPV6_UNICAST or any(ip in network for network in _IPV6_NOT_PUBLIC)):
        return False
    return all(map(_is_public_ipv4, _find_carried(ip, carrier)))


def _find_carried(address: ipaddress.IPv6Address, carrier: Carrier | None) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses inside `address`: by its prefix, and by an ISATAP id, which may stand behind any."""
    bits = int(address)
    if carrier is not None:
        yield ipaddress.IPv4Address(carrier.carried(bits) & 0xFFFFFFFF)
    upper, lower = bits >> 48 & 0xFFFF, bits >> 32 & 0xFFFF
    if lower == _ISATAP and upper & ~_UNIVERSAL_AND_GROUP == 0:
        yield ipaddress.IPv4Address(bits & 0xFFFFFFFF)


def _is_public_ipv4(address: ipaddress.IPv4Address) -> bool:
    return not any(address in network for network in _IPV4_NOT_PUBLIC)
