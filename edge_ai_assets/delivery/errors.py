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


class ForeignError(DeliveryError):
    """A release that belongs elsewhere, or another release under a version that is taken."""


class KeyFileError(DeliveryError):
    """A key file that cannot be made or used."""


class StaleError(DeliveryError):
    """Trust metadata that has expired, by this machine's clock."""
