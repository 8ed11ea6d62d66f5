from __future__ import annotations

import pytest

from cryptopulse.alerts.domain.addresses import UrlRefusedError, checked, is_allowed, parse_url

HOSTILE = [
    # addresses in every spelling
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://0/",
    "https://0.0.0.0/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://169.254.170.2/v2/credentials/",
    "https://8.8.8.8/",
    "https://１２７.０.０.１/",
    "https://①②⑦.⓪.⓪.①/",
    "https://127。0。0。1/",
    "https://127.0.0.1./",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1%25eth0]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2606:4700::1111]/",
    # names of networks' insides
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://foo.localhost/",
    "https://ｌｏｃａｌｈｏｓｔ/",
    "https://metadata.google.internal/",
    "https://router.lan/",
    "https://printer.local/",
    "https://db.corp/",
    "https://redis/",
    "https://intranet/",
    "https://1.0.0.127.in-addr.arpa/",
    "https://hidden.onion/",
    "https://hooks.example.test/",
    # schemes, ports, users, tricks
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "gopher://127.0.0.1:6379/_SET",
    "file:///etc/passwd",
    "//hooks.example.com/",
    "hooks.example.com",
    "https://",
    "https:///path",
    "https://hooks.example.com:6379/",
    "https://hooks.example.com:80/",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:99999/",
    "https://hooks.example.com:x/",
    "https://user:password@hooks.example.com/",
    "https://hooks.example.com@127.0.0.1/",
    "https://127.0.0.1\\@hooks.example.com/",
    "https://hooks.example.com#@127.0.0.1/",
    "https://hooks.example.com/#fragment",
    "https://hooks.exa mple.com/",
    "https://hooks.example.com/\r\nHost: localhost",
    "https://hooks.example.com\t/",
    "https://hooks.example.com/\x00",
    "https://hooks%2eexample.com/",
    "https://%31%32%37.0.0.1/",
    "https://-hooks.example.com/",
    "https://hooks..example.com/",
    "https://hooks_.example.com/",
    "https://" + "a" * 64 + ".example.com/",
    "https://" + "a." * 130 + "com/",
    "https://hooks.example.com/" + "a" * 2100,
    "https://hooks.example.com/ü",
    "https://api.ours.example.com/",
]


@pytest.mark.parametrize("url", HOSTILE, ids=lambda url: repr(url)[:60])
def test_a_hostile_url_is_refused(url: str) -> None:
    with pytest.raises(UrlRefusedError):
        parse_url(url, denied_hosts=frozenset({"ours.example.com"}))


def test_there_are_at_least_sixty_hostile_urls() -> None:
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://hooks.example.com", "https://hooks.example.com/"),
        ("HTTPS://Hooks.Example.COM:443/a?b=c", "https://hooks.example.com/a?b=c"),
        ("https://hooks.example.com:8443/x", "https://hooks.example.com:8443/x"),
        ("https://bücher.de/", "https://xn--bcher-kva.de/"),
        ("https://1password.com/", "https://1password.com/"),
        ("https://3.14.example.io/", "https://3.14.example.io/"),
    ],
)
def test_a_public_url_is_normalised(url: str, normal: str) -> None:
    assert parse_url(url).url == normal


def test_development_takes_loopback_and_http_and_nothing_else() -> None:
    for url in ("http://127.0.0.1:9000/x", "http://localhost:9000/", "http://[::1]:9000/"):
        assert parse_url(url, insecure=True).port == 9000
    for url in (
        "http://10.0.0.1/",
        "http://169.254.170.2/",
        "http://user@127.0.0.1/",
        "ftp://127.0.0.1/",
        "http://router.lan/",
    ):
        with pytest.raises(UrlRefusedError):
            parse_url(url, insecure=True)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.170.2", "169.254.169.254", "100.64.0.1", "192.0.0.192", "192.168.0.1", "172.31.255.255",
     "198.18.0.1", "224.0.0.1", "255.255.255.255", "0.0.0.0", "::1", "::", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "fe80::1",
     "fe80::1%eth0", "fd00:ec2::254", "fc00::1", "64:ff9b::808:808", "2002:7f00:1::", "2001:0:1::", "ff02::1", "fec0::1",
     "::127.0.0.1", "not an address", ""],
)  # fmt: skip
def test_an_address_inside_is_refused(address: str) -> None:
    assert not is_allowed(address)
    with pytest.raises(UrlRefusedError):
        checked(["93.184.216.34", address])


def test_global_addresses_are_allowed_and_the_first_is_dialled() -> None:
    assert checked(["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"]) == "93.184.216.34"
    with pytest.raises(UrlRefusedError):
        checked([])


def test_insecure_adds_loopback_alone() -> None:
    assert is_allowed("127.0.0.1", insecure=True)
    assert not is_allowed("10.0.0.1", insecure=True)
