"""The pure rules: GCRA, policies, frames, channels, API keys, passwords, scopes, conflation classes and rings."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptopulse.common.contracts.identity import Identity
from cryptopulse.gateway.domain import accounts, api_keys, scopes
from cryptopulse.gateway.domain.channels import ChannelRefusedError, parse_channel
from cryptopulse.gateway.domain.conflation import Meter, interval_class
from cryptopulse.gateway.domain.frames import close_frame, text_frame
from cryptopulse.gateway.domain.limits import Policies, Policy, gcra


def test_gcra_lets_the_burst_pass_then_one_per_interval() -> None:
    policy = Policy("p", 60, 60, 5)
    tat = 0.0
    allowed = []
    for _ in range(7):
        verdict, tat = gcra(policy, tat, 1e6, 1)
        allowed.append(verdict.allowed)
    assert allowed == [True] * 5 + [False] * 2
    refused, _ = gcra(policy, tat, 1e6, 1)
    assert refused.retry_us == 1_000_000
    later, _ = gcra(policy, tat, 2e6, 1)
    assert later.allowed


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=50), st.integers(1, 100), st.integers(1, 50))
def test_gcra_never_grants_more_than_burst_and_refill(costs: list[float], quota: int, burst: int) -> None:
    policy = Policy("p", quota, 60, burst)
    tat, now, granted = 0.0, 1e9, 0.0
    for cost in costs:
        now += 100_000
        verdict, tat = gcra(policy, tat, now, cost)
        granted += cost if verdict.allowed else 0
    assert granted <= burst + (now - 1e9) / policy.emission_us + 1e-6


@pytest.mark.parametrize(
    "text", ["x", "anonymous.reads", "anonymous.reads=0/60", "nobody.reads=1/1", "free.flights=1/1"]
)
def test_policies_name_their_faults(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not <tier>"):
        Policies(text)


def test_policies_are_changed_one_by_one() -> None:
    policies = Policies("anonymous.reads=5/10:2, pro.writes=7/60")
    assert policies.of("anonymous", "reads").burst == 2
    assert policies.of("pro", "writes").quota == 7
    assert policies.of("unheard-of", "reads").name == "free-reads"


@given(st.binary(max_size=70_000))
def test_frames_are_read_back_by_another_implementation(payload: bytes) -> None:
    from websockets.client import ClientProtocol
    from websockets.frames import Opcode
    from websockets.protocol import State
    from websockets.uri import parse_uri

    client = ClientProtocol(parse_uri("ws://localhost/"))
    client.state = State.OPEN
    client.parser = client.parse()
    next(client.parser)
    text = payload.hex().encode()[:70_000]
    client.receive_data(text_frame(text) + close_frame(4008, "slow consumer"))
    first, second = client.events_received()
    assert first.opcode is Opcode.TEXT  # type: ignore[union-attr]  # a frame, after the handshake
    assert bytes(first.data) == text  # type: ignore[union-attr]  # as above
    assert second.opcode is Opcode.CLOSE  # type: ignore[union-attr]  # as above
    assert client.close_rcvd is not None
    assert client.close_rcvd.code == 4008


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ticker", "ticker"), ("candles:1h", "candles"), ("candles:1s", "candles"), ("indicators:1m", "indicators"), ("indicators:rsi_14:1m", "indicators"),
        ("portfolio:12", "portfolio"), ("alerts", "alerts"),
    ],
)  # fmt: skip
def test_channels_are_understood(name: str, kind: str) -> None:
    assert parse_channel(name).kind == kind


@pytest.mark.parametrize(
    "name",
    [
        "",
        "ticker:1m",
        "candles",
        "candles:1S",
        "indicators:1s",
        "indicators:rsi_14:1s",
        "indicators:../x:1m",
        "portfolio:-1",
        "portfolio:٣",
        "portfolio:" + "9" * 30,
    ],
)
def test_nonsense_channels_are_refused_with_a_code(name: str) -> None:
    with pytest.raises(ChannelRefusedError) as caught:
        parse_channel(name)
    assert caught.value.code in {"unknown_channel", "unknown_interval"}


def test_keys_are_verified_offline() -> None:
    key = api_keys.make(secrets.choice)
    assert api_keys.parse(key.text) == key
    for place in range(len(key.text)):
        other = "a" if key.text[place] != "a" else "b"
        assert api_keys.parse(key.text[:place] + other + key.text[place + 1 :]) != key
    assert api_keys.is_address_allowed("10.0.0.1", ["10.0.0.0/8"])
    assert not api_keys.is_address_allowed("nonsense", ["10.0.0.0/8"])


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("::ffff:10.0.0.1", True),
        ("::ffff:11.0.0.1", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("::a00:1", False),
    ],
)
def test_a_key_is_bound_to_addresses_of_both_families(address: str, is_allowed: bool) -> None:
    assert api_keys.is_address_allowed(address, ["10.0.0.0/8", "2001:db8::/32"]) is is_allowed


def test_passwords_need_length_not_composition() -> None:
    assert accounts.password_fault("correct horse", "a@b.cd") is None
    for bad in ("short", "x" * 200, "Password1", "aaaaaaaaaaa", "a@b.cdefg"):
        assert accounts.password_fault(bad, "a@b.cdefg") is not None


def test_locks_begin_with_the_tenth_failure_and_double() -> None:
    assert [accounts.lock_seconds(failed) for failed in (1, 9, 10, 11, 12, 99)] == [0, 0, 60, 120, 240, 3_600]


def test_the_star_is_no_admin_and_nobody_grants_what_he_does_not_hold() -> None:
    everything = Identity("u", frozenset({"*"}))
    assert scopes.permits(everything, "alerts")
    assert not scopes.permits(everything, "admin")
    assert scopes.expand(["alerts"]) == {"alerts", "alerts:read", "alerts:write"}
    narrow = Identity("u", scopes.expand(["alerts:read"]))
    assert scopes.excess(narrow, ["alerts:read", "alerts", "admin", "portfolio"]) == [
        "admin",
        "alerts",
        "portfolio",
    ]


def test_no_client_is_served_faster_than_he_asks() -> None:
    assert [interval_class(wish) for wish in (0, 1, 100, 101, 1_000, 4_000, 9_000)] == [
        0,
        100,
        100,
        1_000,
        1_000,
        5_000,
        5_000,
    ]


def test_the_inbound_meter_refills() -> None:
    meter = Meter(rate=5, burst=2)
    assert [meter.take(1.0) for _ in range(3)] == [True, True, False]
    assert meter.take(1.25)
    assert meter.refused == 1
