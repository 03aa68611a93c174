"""Which addresses may be asked."""

from __future__ import annotations

import ipaddress

import pytest

from crawler.address import AddressError, authority_of, is_permitted, parse_address
from warehouse.schema import Reason

# address, public, with allow_private
IPS = [
    ("93.184.216.34", True, True),
    ("2606:2800:220:1:248:1893:25c8:1946", True, True),
    ("127.0.0.1", False, True),
    ("10.1.2.3", False, True),
    ("172.16.0.1", False, True),
    ("192.168.1.1", False, True),
    ("::1", False, True),
    ("fd12::1", False, True),
    ("::ffff:127.0.0.1", False, True),
    ("169.254.169.254", False, False),
    ("::ffff:169.254.169.254", False, False),
    ("64:ff9b::a9fe:a9fe", False, False),
    ("2002:a9fe:a9fe::1", False, False),
    ("fd00:ec2::254", False, False),
    ("fe80::1", False, False),
    ("100.100.100.200", False, False),
    ("0.0.0.0", False, False),
    ("224.0.0.1", False, False),
    ("ff02::1", False, False),
    ("255.255.255.255", False, False),
]


@pytest.mark.parametrize(("ip", "public", "private"), IPS)
def test_permitted(ip: str, public: bool, private: bool) -> None:
    address = ipaddress.ip_address(ip)
    assert is_permitted(address, allow_private=False) is public
    assert is_permitted(address, allow_private=True) is private


BAD = [
    "",
    "/a.jpg",
    "ftp://example.org/a.jpg",
    "file:///etc/passwd",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "http://",
    "http:///a.jpg",
    "http://example.org:99999/",
    "http://[::1/a.jpg",
    "http://user:pw@example.org/",
    "http://exa mple.org/",
    "http://example.org\\@evil.org/",
    "http://" + "a" * 70 + "ä.org/",
    "http://example.org/" + "a" * 9000,
]


@pytest.mark.parametrize("url", BAD)
def test_bad_addresses(url: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(url)
    assert caught.value.reason is Reason.BAD_ADDRESS
    assert authority_of(url) == ""


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        ("http://Example.org", "http://example.org", "/"),
        ("HTTP://example.org:80/a b.jpg", "http://example.org", "/a%20b.jpg"),
        ("https://example.org:443/ä.jpg?q=ü#x", "https://example.org", "/%C3%A4.jpg?q=%C3%BC"),
        ("https://example.org:8443/a%20b", "https://example.org:8443", "/a%20b"),
        ("http://[::1]:8080/x", "http://[::1]:8080", "/x"),
        ("http://bücher.example/", "http://xn--bcher-kva.example", "/"),
        ("http://example.org./\r\nX: y", "http://example.org", "/X:%20y"),
    ],
)
def test_good_addresses(url: str, authority: str, target: str) -> None:
    address = parse_address(url)
    assert (address.authority, address.target) == (authority, target)
