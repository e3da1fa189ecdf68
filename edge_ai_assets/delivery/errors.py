"""What delivery refuses, and why. A message is a sentence with the value and, if any, a way out."""

from __future__ import annotations


class DeliveryError(Exception):
    """Something was refused; nothing that was not checked became visible."""


class MissingError(DeliveryError):
    """A blob, tag, file or release that is not there."""


class MismatchError(DeliveryError):
    """Content that is not what its digest, size or description says."""


class TooLargeError(DeliveryError):
    """Content beyond a bound."""


class MalformedError(DeliveryError):
    """Bytes that do not have the form they must have."""


class UntrustedError(DeliveryError):
    """A statement without a valid signature of a trusted key."""


class RollbackError(DeliveryError):
    """A release older than one that was installed."""


class WithdrawnError(DeliveryError):
    """A release that Azure took back after it was published."""


class ForeignError(DeliveryError):
    """A release that belongs elsewhere, or another release under a version that is taken."""


class KeyFileError(DeliveryError):
    """A key file that cannot be made or used."""


class StaleError(DeliveryError):
    """Trust metadata that has expired, by this machine's clock."""


class RegistryError(DeliveryError):
    """A registry that did not do what it was asked.

    Args:
        status_code: of its answer; None when there was none.
    """

    def __init__(self, said: str, status_code: int | None = None) -> None:
        super().__init__(said)
        self.status_code = status_code


class UnreachableError(RegistryError):
    """A registry that cannot be reached just now, or is too busy: it can be tried again."""


class DeniedError(RegistryError):
    """A registry that does not let us in, or not do this: trying again does not help."""
