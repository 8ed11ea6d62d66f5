"""The exceptions of the house.

CryptoPulseError
 ├── Retryable            the same call may succeed later
 │    └── Unavailable           what the call rests on is away
 │         ├── BusUnavailable        the broker is away, blocked or did not confirm
 │         │    └── NoQueueYet            nobody has subscribed to a topic that must have a queue
 │         ├── StoreUnavailable      Redis or Postgres is away, slow or read-only
 │         └── UpstreamUnavailable   another service or a venue did not answer properly
 └── Refused              the same call will never succeed
      ├── Invalid               malformed input; `errors` names fields and fixes
      ├── NotFound              not there, or not yours
      ├── Forbidden             known caller without the right
      ├── Unauthenticated       no or bad credential
      ├── Conflict              a version, state or idempotency conflict
      ├── PreconditionFailed    `If-Match` named an old version
      └── LimitExceeded         over a limit; `retry_after_seconds` when waiting helps
"""

from __future__ import annotations

from dataclasses import dataclass


class CryptoPulseError(Exception):
    """Base of all errors that the house raises on purpose."""


class Retryable(CryptoPulseError):  # noqa: N818 - read as a claim about the failure, as in the tree above
    """The same call may succeed later."""


class Unavailable(Retryable):
    """What the call rests on is away; the call itself is not to blame."""


class BusUnavailable(Unavailable):
    """The broker is away, blocked, or did not confirm in time."""


class NoQueueYet(BusUnavailable):
    """No queue is bound for a message that must not be lost: its consumer has never run so far."""


class StoreUnavailable(Unavailable):
    """Redis or Postgres is away, slow or read-only."""


class UpstreamUnavailable(Unavailable):
    """Another service or a venue did not answer, or answered with a server error."""

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field: `pointer` is a JSON pointer or a parameter's name, `detail` names the fix."""

    pointer: str
    code: str
    detail: str


class Refused(CryptoPulseError):  # noqa: N818 - read as a claim about the failure, as in the tree above
    """The same call will never succeed. `code` is the stable code that clients see."""

    code = "refused"

    def __init__(self, detail: str, *, code: str | None = None, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = errors


class Invalid(Refused):
    """Malformed input."""

    code = "invalid"


class InvalidCursor(Invalid):
    """A cursor that was not given out for this list to this caller."""

    code = "invalid-cursor"


class NotFound(Refused):
    """Not there, or not yours: both look the same."""

    code = "not-found"


class Forbidden(Refused):
    """A known caller without the right to do this."""

    code = "forbidden"


class Unauthenticated(Refused):
    """No credential, or a bad one."""

    code = "unauthenticated"


class Conflict(Refused):
    """A conflict with the present state."""

    code = "conflict"


class PreconditionFailed(Refused):
    """`If-Match` named a version that is no longer the newest."""

    code = "precondition-failed"


class LimitExceeded(Refused):
    """Over a limit."""

    code = "limit-exceeded"

    def __init__(
        self, detail: str, *, code: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(detail, code=code)
        self.retry_after_seconds = retry_after_seconds
