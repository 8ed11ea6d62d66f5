"""Plays a recording: waits for a client, keeps the recorded distances (divided by the speed), hands frames to the venues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from tools.venue_sim.faults.engine import Faults
from tools.venue_sim.playback.market import PlaybackMarket
from tools.venue_sim.playback.reader import Frame, Recording
from tools.venue_sim.venues.site import VenueSite

_TICK_SECONDS: Final = 0.1
_BATCH: Final = 256


class PlayClock:
    """The recording's time: its first moment until it starts, then moving at the speed, its last moment at the end.

    At speed 0 it jumps from frame to frame.
    """

    def __init__(self, frames: list[Frame], speed: float) -> None:
        self.first_us = frames[0].at_us if frames else 0
        self.last_us = frames[-1].at_us if frames else 0
        self.speed = speed
        self.reached_us = self.first_us
        self._base_us = self.first_us
        self._running_since: float | None = None
        self._ended_at: float | None = None

    def start(self) -> None:
        """Begin to run."""
        if self._running_since is None:
            self._running_since = time.monotonic()

    def pause(self) -> None:
        """Stand still."""
        self._base_us = self.now_us()
        self._running_since = None

    def end(self) -> None:
        """The last frame is out: from now on time goes on as it does for everybody."""
        self._ended_at = time.monotonic()

    def now_us(self) -> int:
        """The time of the recording."""
        if self._ended_at is not None:
            return max(self.reached_us, self.last_us) + int((time.monotonic() - self._ended_at) * 1e6)
        if self._running_since is None or self.speed <= 0:
            return max(self._base_us, self.reached_us)
        return self._base_us + int((time.monotonic() - self._running_since) * self.speed * 1e6)


class Player:
    """Takes the engine's place for a recording."""

    def __init__(
        self,
        recording: Recording,
        market: PlaybackMarket,
        clock: PlayClock,
        venues: Mapping[str, VenueSite],
        faults: Faults,
        *,
        step_seconds: float,
        wait_seconds: float,
    ) -> None:
        self._recording = recording
        self._market = market
        self._clock = clock
        self._venues = dict(venues)
        self._faults = faults
        self._step_seconds = step_seconds
        self._wait_seconds = wait_seconds
        self._next = 0
        self._tick_at = 0.0
        self._started = False
        self._paused = False
        self._wanted_before = 0
        self._quiet_since = 0.0
        self.trades_made = 0
        self.quotes_made = 0

    @property
    def ended(self) -> bool:
        """Whether every frame was handed out."""
        return self._next >= len(self._recording.frames)

    def state(self) -> dict[str, Any]:
        """How far it is."""
        return {
            "started": self._started,
            "ended": self.ended,
            "frames": len(self._recording.frames),
            "played": self._next,
            "lines": self._recording.lines,
            "skipped_lines": self._recording.skipped,
            "now_us": self._clock.now_us(),
        }

    def set_paused(self, *, paused: bool) -> None:
        """Stand still, or go on."""
        self._paused = paused
        if paused:
            self._clock.pause()
        elif self._started:
            self._clock.start()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            started = time.monotonic()
            self._periodic(started)
            if self._may_play(started):
                self._play()
            for venue in self._venues.values():
                venue.flush()
            busy = self._clock.speed <= 0 and self._started and not self.ended and not self._held_back()
            pause = 0.0 if busy else max(0.0, self._step_seconds - (time.monotonic() - started))
            await asyncio.sleep(pause)

    def _periodic(self, now: float) -> None:
        if now < self._tick_at:
            return
        self._tick_at = now + _TICK_SECONDS
        self._faults.tick()
        for venue in self._venues.values():
            venue.tick(now)

    def _may_play(self, now: float) -> bool:
        if self._paused or self.ended:
            return False
        if self._started:
            return True
        wanted = sum(pair.wants_trades + pair.wants_quotes for pair in self._market.all_pairs())
        if wanted != self._wanted_before:
            self._wanted_before = wanted
            self._quiet_since = now
        if wanted == 0 or now - self._quiet_since < self._wait_seconds:
            return False
        self._started = True
        self._clock.start()
        return True

    def _held_back(self) -> bool:
        return any(
            connection.paused and not connection.muted
            for venue in self._venues.values()
            for connection in venue.connections()
        )

    def _play(self) -> None:
        frames = self._recording.frames
        if self._clock.speed <= 0:
            if self._held_back():
                return
            stop = min(self._next + _BATCH, len(frames))
        else:
            stop = self._next
            now_us = self._clock.now_us()
            while stop < len(frames) and frames[stop].at_us <= now_us:
                stop += 1
        for frame in frames[self._next : stop]:
            self._clock.reached_us = frame.at_us
            self._hand_out(frame)
        self._next = stop
        if self.ended:
            self._clock.end()

    def _hand_out(self, frame: Frame) -> None:
        pair, trades = self._market.take(frame)
        self.trades_made += len(trades)
        if frame.quote is not None:
            self.quotes_made += 1
        venue = self._venues.get(frame.venue)
        if venue is not None:
            venue.publish_recorded(pair, frame.channel, frame.payload)
            if trades:
                venue.publish_trades(pair, trades)
