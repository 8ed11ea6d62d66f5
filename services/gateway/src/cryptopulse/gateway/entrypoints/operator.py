"""Subcommands for operators: users and API keys, one JSON line each; secrets and hashes are never shown."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import orjson

from cryptopulse.common.runtime.operator_tool import Tool
from cryptopulse.gateway.application.administer import Administration

Open = Callable[[Any], AbstractAsyncContextManager[Administration]]
"""The use cases over the stores that the settings name."""
Act = Callable[[argparse.Namespace, Administration], Awaitable[None]]
USER: Final = (
    "id",
    "email",
    "tier",
    "is_admin",
    "verified_at",
    "failed_logins",
    "locked_until",
    "created_at",
    "disabled_at",
)
KEY: Final = (
    "id",
    "name",
    "scopes",
    "tier",
    "addresses",
    "created_at",
    "expires_at",
    "revoked_at",
    "replaces",
)


def tools(opened: Open) -> dict[str, Tool]:
    """The commands over what `opened` gives."""

    def answered(act: Act) -> Callable[[argparse.Namespace, Any], Awaitable[int]]:
        async def answer(wish: argparse.Namespace, settings: Any) -> int:
            async with opened(settings) as administration:
                await act(wish, administration)
            return 0

        return answer

    return {
        "users": Tool(
            "list users, disable them, give or take the right to administer, end sessions",
            _users,
            answered(_act_on_users),
        ),
        "keys": Tool("list or revoke API keys", _keys, answered(_act_on_keys)),
    }


def _users(parser: argparse.ArgumentParser) -> None:
    wishes = parser.add_subparsers(dest="wish", required=True)
    wishes.add_parser("list", help="the newest first").add_argument("--limit", type=int, default=50)
    for wish, text in (
        ("show", "one user"),
        ("grant-admin", "let a user use /v1/admin, from his next login on"),
        ("revoke-admin", "take that right and end his sessions"),
        ("end-sessions", "end all sessions of a user: each device logs in again"),
        ("disable", "keep a user out at once: sessions end, sockets close, keys rest until he is enabled"),
        ("enable", "let a disabled user log in and use his keys again"),
    ):
        wishes.add_parser(wish, help=text).add_argument("email")


async def _act_on_users(wish: argparse.Namespace, administration: Administration) -> None:
    match wish.wish:
        case "list":
            for user in await administration.users(wish.limit):
                _show(user, USER)
        case "show":
            _show(await administration.user(wish.email), USER)
        case "end-sessions":
            print(f"{await administration.end_sessions(wish.email)} sessions ended")  # noqa: T201 - the answer of a command
        case "disable":
            _show(await administration.disable(wish.email, by="command"), USER)
        case "enable":
            _show(await administration.enable(wish.email, by="command"), USER)
        case _:
            await administration.set_admin(wish.email, wish.wish == "grant-admin")
            _show(await administration.user(wish.email), USER)


def _keys(parser: argparse.ArgumentParser) -> None:
    wishes = parser.add_subparsers(dest="wish", required=True)
    listing = wishes.add_parser("list", help="keys of a user that are not revoked, the newest first")
    listing.add_argument("email")
    listing.add_argument("--limit", type=int, default=50)
    wishes.add_parser("revoke", help="end a key at once, in every gateway").add_argument("key_id")


async def _act_on_keys(wish: argparse.Namespace, administration: Administration) -> None:
    if wish.wish == "list":
        for key in await administration.keys(wish.email, wish.limit):
            _show(key, KEY)
        return
    await administration.revoke_key(wish.key_id)
    print(f"{wish.key_id} is revoked")  # noqa: T201 - the answer of a command


def _show(record: Any, names: tuple[str, ...]) -> None:
    print(orjson.dumps({name: getattr(record, name) for name in names}).decode())  # noqa: T201 - the answer of a command
