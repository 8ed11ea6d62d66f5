"""The ingestor's internal HTTP: translate, call a use case, translate back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Response

from cryptopulse.common.contracts.http.ingest import (
    BackfillAccepted,
    BackfillRequest,
    FeedControlled,
    Quarantine,
    QuarantinedFrame,
    WantedRequest,
)
from cryptopulse.common.contracts.identity import Identity
from cryptopulse.common.errors import Forbidden, Invalid, NotFound
from cryptopulse.common.security.identity import caller
from cryptopulse.ingestor.application.backfill import Backfill
from cryptopulse.ingestor.application.feed import VenueFeed
from cryptopulse.ingestor.application.ingest import Ingest
from cryptopulse.ingestor.application.reference import ReferencePoller
from cryptopulse.ingestor.domain.history import Series

SHOWN_FRAMES = 100
ADMIN = "admin"
Caller = Annotated[Identity, Depends(caller)]


class IngestHttp:
    """The routes over the use cases."""

    def __init__(
        self,
        feeds: Sequence[VenueFeed],
        ingests: Mapping[str, Ingest],
        backfill: Backfill,
        poller: ReferencePoller | None,
    ) -> None:
        self._feeds = {feed.venue.name: feed for feed in feeds}
        self._ingests = ingests
        self._backfill = backfill
        self._poller = poller

    def router(self) -> APIRouter:
        """All routes of `contracts.http.ingest.ROUTES`."""
        router = APIRouter()
        router.add_api_route("/backfill", self.request_backfill, methods=["POST"], status_code=202)
        router.add_api_route(
            "/wanted", self.put_wanted, methods=["PUT"], status_code=204, response_class=Response
        )
        router.add_api_route("/feeds/{venue}/pause", self.pause_feed, methods=["POST"])
        router.add_api_route("/feeds/{venue}/resume", self.resume_feed, methods=["POST"])
        router.add_api_route("/feeds/{venue}/quarantine", self.list_quarantine, methods=["GET"])
        router.add_api_route("/status", self.list_feeds, methods=["GET"], response_class=Response)
        return router

    async def request_backfill(self, body: BackfillRequest, who: Caller) -> BackfillAccepted:
        """Queue the series on one venue, or on every one that has it."""
        _known(who)
        venues = [body.venue] if body.venue else self._having(body.symbol, body.interval)
        if not venues:
            raise Invalid(
                f"no venue here lists {body.symbol} with {body.interval} candles", code="unknown-series"
            )
        queued: list[str] = []
        waiting: list[str] = []
        for venue in venues:
            series = Series(venue, body.symbol, body.interval, body.from_ms, body.to_ms, body.reason)
            taken = self._backfill.ask(series)
            (queued if taken else waiting).append(f"{venue} {body.symbol} {body.interval}")
        return BackfillAccepted(queued=queued, waiting=waiting)

    async def put_wanted(self, body: WantedRequest, who: Caller) -> Response:
        """Keep coins priced."""
        _known(who)
        if self._poller is None:
            raise NotFound("no reference source is served here")
        await self._poller.want(body.coin_ids, body.ttl_seconds)
        return Response(status_code=204)

    async def pause_feed(self, venue: str, who: Caller) -> FeedControlled:
        """Close a venue's sockets."""
        _may_control(who)
        await self._named(venue).pause()
        return FeedControlled(venue=venue, paused=True)

    async def resume_feed(self, venue: str, who: Caller) -> FeedControlled:
        """Open them again."""
        _may_control(who)
        await self._named(venue).resume()
        return FeedControlled(venue=venue, paused=False)

    async def list_quarantine(self, venue: str, who: Caller) -> Quarantine:
        """The newest refused frames."""
        _may_control(who)
        ingest = self._ingests.get(venue)
        if ingest is None:
            raise NotFound(f"venue {venue!r:.40} is not served here")
        frames = [
            QuarantinedFrame(
                at_us=q.at_us, reason=q.reason, detail=q.detail, frame=q.frame.decode("utf-8", "replace")
            )
            for q in list(ingest.quarantine)[-SHOWN_FRAMES:]
        ]
        return Quarantine(venue=venue, counts=dict(ingest.refusals), frames=frames)

    async def list_feeds(self, who: Caller) -> Response:
        """The status of every venue."""
        del who
        found = [feed.status() for feed in self._feeds.values()]
        if self._poller is not None:
            found.append(self._poller.status())
        return Response(msgspec.json.encode(found), media_type="application/json")

    def _named(self, venue: str) -> VenueFeed | ReferencePoller:
        if venue in self._feeds:
            return self._feeds[venue]
        if self._poller is not None and venue == self._poller.name:
            return self._poller
        raise NotFound(f"venue {venue!r:.40} is not served here: {', '.join(self._feeds) or 'none'} are")

    def _having(self, symbol: str, interval: str) -> list[str]:
        return [name for name, feed in self._feeds.items() if feed.serves(symbol, interval)]


def _known(who: Identity) -> None:
    """Only services and known users command the ingestor."""
    if who.kind == "anonymous":
        raise Forbidden("This is for other services.")


def _may_control(who: Identity) -> None:
    """Pausing a venue concerns everyone: services and administrators. `admin` counts only by name, `*` does not hold it."""
    if who.kind != "service" and ADMIN not in who.scopes:
        raise Forbidden("This is for other services and administrators.")
