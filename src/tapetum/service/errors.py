"""Errors that become an answer with a status of their own."""

from tapetum.core.errors import InUseError, OutputError, TapetumError


class ServiceError(TapetumError):
    """Base of what the service refuses, in one line for the client.

    Args:
        retry_after: seconds after which it may work; None says nothing.
    """

    status = 400

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class SignInError(ServiceError):
    """Nobody, or somebody whose session or key has ended."""

    status = 401


class ForbiddenError(ServiceError):
    """A role that may not do this, or a request that another site made the browser send."""

    status = 403


class NotFoundError(ServiceError):
    """There is no such thing."""

    status = 404


class ConflictError(ServiceError):
    """Not in this state."""

    status = 409


class TooLargeError(ServiceError):
    """More bytes, pixels or parts than allowed."""

    status = 413


class PictureError(ServiceError):
    """What was sent is no picture that can be read."""

    status = 415


class HostError(ServiceError):
    """The request speaks to a name that is not this server's."""

    status = 421


class RateError(ServiceError):
    """Too many requests."""

    status = 429


class OverloadError(ServiceError):
    """Too much at once for this machine."""

    status = 503


def status_of(error: TapetumError) -> int:
    """The status of the answer to what an error refused."""
    if isinstance(error, OutputError):
        return 409 if isinstance(error, InUseError) else 507
    return error.status if isinstance(error, ServiceError) else 400
