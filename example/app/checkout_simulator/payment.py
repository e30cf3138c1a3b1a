"""The call of a payment service: another simulator, whose `POST /charge` does as it is told."""

from __future__ import annotations

from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

# What an answer may take beyond the wait that was asked for, in seconds.
GRACE_S = 5


class PaymentError(RuntimeError):
    """The payment service did not answer, or not as it was told; the message says how."""


def charge(url: str, wait_ms: float, fails: bool) -> None:
    """Have the service at `url` charge for `wait_ms` milliseconds, and fail or succeed; PaymentError if it does not."""
    query = urlencode({"delay_ms": wait_ms, "error_rate": int(fails)})
    wanted = 500 if fails else 200
    try:
        # The address is bounded by settings.Address to http and https.
        request = Request(f"{url}/charge?{query}", method="POST")  # noqa: S310
        with urlopen(request, timeout=wait_ms / 1000 + GRACE_S) as response:  # noqa: S310
            status = response.status
    except HTTPError as error:
        error.close()
        status = error.code
    except (OSError, HTTPException) as error:
        raise PaymentError(f"no answer from {url}: {getattr(error, 'reason', None) or error}") from None
    if status != wanted:
        raise PaymentError(f"{url} answered {status} in place of {wanted}")
