"""Addresses that are on the open internet, and all disguises of those that are not."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mandate.activities.toolbox.http.public_address import is_public

RFC_6052 = (32, 40, 48, 56, 64, 96)
"""Lengths of a prefix behind which an IPv4 address may stand; bits 64 to 71 stay empty."""


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("192.31.196.1", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("172.32.0.1", True),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("192.0.0.9", False),
        ("192.0.2.1", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("2620:4f:8000::1", True),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("fc00::1", False),
        ("ff0e::1", False),
        ("100::1", False),
        ("100:0:0:1::1", False),
        ("5f00::1", False),
        ("4000::1", False),
        ("2001:2::1", False),
        ("2001:db8::1", False),
        ("3fff::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("2002:7f00:0001::", False),
        ("2002:5db8:d822::1", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("64:ff9b:1::7f00:1", False),
        ("64:ff9b:1::5db8:d822", False),
        ("::127.0.0.1", False),
        ("::169.254.169.254", False),
        ("::ffff:0:127.0.0.1", False),
        ("2600::5efe:127.0.0.1", False),
        ("2600::200:5efe:a00:1", False),
        ("2600::5efe:93.184.216.34", True),
        ("2002:5db8:d822::5efe:10.0.0.1", False),
        ("2001:0:5db8:d822::", False),
    ],
)
def test_addresses_that_are_not_public_are_known_in_every_disguise(address: str, public: bool) -> None:
    assert is_public(address) is public


def embedded(prefix: str, length: int, address: ipaddress.IPv4Address) -> str:
    """`address` behind the first `length` bits of `prefix`, as RFC 6052 places it."""
    bits = int(ipaddress.IPv6Address(prefix)) >> (128 - length)
    for position, octet in enumerate(address.packed):
        if length + 8 * position == 64 and length != 96:
            bits, length = bits << 8, length + 8
        bits = bits << 8 | octet
    written = length + 32
    return str(ipaddress.IPv6Address(bits << (128 - written) if written < 128 else bits))


def test_an_address_is_placed_around_the_empty_octet() -> None:
    """The examples of RFC 6052, 2.4, with a prefix for documentation."""
    address = ipaddress.IPv4Address("192.0.2.33")

    made = [embedded(f"2001:db8:{rest}", length, address) for rest, length in (
        (":", 32), ("100::", 40), ("122::", 48), ("122:300::", 56), ("122:344::", 64), ("122:344::", 96),
    )]  # fmt: skip

    assert made == [
        "2001:db8:c000:221::",
        "2001:db8:1c0:2:21::",
        "2001:db8:122:c000:2:2100::",
        "2001:db8:122:3c0:0:221::",
        "2001:db8:122:344:c0:2:2100:0",
        "2001:db8:122:344::c000:221",
    ]


def disguises(address: ipaddress.IPv4Address) -> dict[str, str]:
    """`address` in each form that carries one, by the form's name."""
    bits = int(address)
    teredo = int(ipaddress.IPv6Address("2001::"))
    return {
        "mapped": embedded("::ffff:0:0", 96, address),
        "compatible": embedded("::", 96, address),
        "translated": embedded("::ffff:0:0:0", 96, address),
        "NAT64": embedded("64:ff9b::", 96, address),
        **{f"NAT64 for local use, /{n}": embedded("64:ff9b:1::", n, address) for n in RFC_6052 if n >= 48},
        "6to4": embedded("2002::", 16, address),
        "Teredo server": str(ipaddress.IPv6Address(teredo | bits << 64 | 0xA247_27DD)),
        "Teredo client": str(ipaddress.IPv6Address(teredo | 0x5DB8_D822 << 64 | bits ^ 0xFFFF_FFFF)),
        **{f"ISATAP {iid:x}": str(ipaddress.IPv6Address(0x2600 << 112 | iid << 48 | 0x5EFE << 32 | bits))
           for iid in (0, 0x100, 0x200, 0x300)},
        "ISATAP in 6to4": str(ipaddress.IPv6Address(0x2002_5DB8_D822 << 80 | 0x5EFE << 32 | bits)),
    }  # fmt: skip


@given(st.one_of(st.ip_addresses(v=4), st.sampled_from(("127.0.0.1", "10.0.0.1")).map(ipaddress.IPv4Address)))
@example(ipaddress.IPv4Address("127.0.0.1"))
@example(ipaddress.IPv4Address("169.254.169.254"))
@example(ipaddress.IPv4Address("93.184.216.34"))
def test_no_disguise_makes_an_address_public(address: ipaddress.IPv4Address) -> None:
    taken = [form for form, disguised in disguises(address).items() if is_public(disguised)]

    assert not taken or is_public(str(address))
