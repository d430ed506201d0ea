"""Signed webhooks after the Standard Webhooks specification 1.0: what a receiver checks, and what we send.

The signature is HMAC-SHA256 over `<id>.<timestamp>.<body>`, sent as `webhook-signature: v1,<base64>`;
several, split by single blanks, while a secret is being rotated. Secrets travel as `whsec_<base64 of 24 to 64
bytes>`. A channel's secret is derived from the deployment's master secret, so that none is stored and each
endpoint has its own.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the public prefix, not a secret
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
MIN_MASTER_BYTES: Final = 32
#: Seconds by which a signature's time may be away from the receiver's clock, either way.
TOLERANCE_S: Final = 300
MAX_SIGNATURES: Final = 8
_HEADERS: Final = ("webhook-id", "webhook-timestamp", "webhook-signature")
_ID: Final = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,256}", re.ASCII)  # visible ASCII without '.', the field separator
_TIMESTAMP: Final = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_SIGNATURE: Final = re.compile(r"v1,[A-Za-z0-9+/]{43}=", re.ASCII)
_OTHER_VERSION: Final = re.compile(r"v(?!1,)[0-9]{1,3}[a-z]?,[A-Za-z0-9+/=_-]{1,256}", re.ASCII)


class WebhookVerificationError(ValueError):
    """A webhook is not what its sender signed, or not in time. The message names the check only."""


def channel_secret(master: bytes, channel_id: str, version: int) -> str:
    """The `whsec_` secret of one channel (32 bytes, HMAC-SHA256 of id and version under the master secret).

    `version` counts rotations from 1. `master` holds at least 32 bytes.
    """
    if len(master) < MIN_MASTER_BYTES:
        raise ValueError(f"the master secret must hold at least {MIN_MASTER_BYTES} bytes")
    if version < 1:
        raise ValueError("versions count from 1")
    label = f"tocsin:webhook:{version}:{channel_id}".encode()
    raw = hmac.new(master, label, hashlib.sha256).digest()
    return SECRET_PREFIX + base64.b64encode(raw).decode("ascii")


def secret_bytes(secret: str) -> bytes:
    """The key inside a `whsec_` secret. Raises ValueError unless it is canonical base64 of 24 to 64 bytes."""
    if not secret.startswith(SECRET_PREFIX):
        raise ValueError("a webhook secret begins with whsec_")
    text = secret[len(SECRET_PREFIX) :]
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise ValueError("a webhook secret is base64 after whsec_") from error
    if base64.b64encode(raw).decode("ascii") != text:
        raise ValueError("a webhook secret is canonical base64 after whsec_")
    if not MIN_SECRET_BYTES <= len(raw) <= MAX_SECRET_BYTES:
        raise ValueError(f"a webhook secret holds {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes")
    return raw


def _sign(key: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    mac = hmac.new(key, f"{message_id}.{timestamp}.".encode("ascii") + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(mac).decode("ascii")


def sign(secrets: Sequence[str], message_id: str, at_s: int, body: bytes) -> dict[str, str]:
    """Headers for one delivery attempt at `at_s` (Unix seconds), with a signature per secret, newest first.

    `message_id` is 1 to 256 visible ASCII characters without '.'. Give two secrets while one is being rotated
    out.
    """
    if not _ID.fullmatch(message_id):
        raise ValueError("a message id is 1 to 256 visible ASCII characters without '.'")
    if not 1 <= len(secrets) <= MAX_SIGNATURES:
        raise ValueError(f"sign with 1 to {MAX_SIGNATURES} secrets")
    timestamp = str(at_s)
    if not _TIMESTAMP.fullmatch(timestamp):
        raise ValueError("the time is Unix seconds")
    signatures = (_sign(secret_bytes(secret), message_id, timestamp, body) for secret in secrets)
    return dict(zip(_HEADERS, (message_id, timestamp, " ".join(signatures)), strict=True))


def verify(
    secrets: Sequence[str],
    headers: Mapping[str, str],
    body: bytes,
    now_s: int,
    tolerance_s: int = TOLERANCE_S,
) -> str:
    """The message id of a genuine webhook. Header names are matched without case; `now_s` is Unix seconds.

    Strict where the reference library is lax: the timestamp is plain decimal digits, each signature is exact
    base64 of 32 bytes, at most MAX_SIGNATURES stand in the header, a header stands once, secrets have their
    full length. Signatures of other versions are passed over. Raises WebhookVerificationError, or ValueError
    for a bad secret.
    """
    keys = [secret_bytes(secret) for secret in secrets]
    if not keys:
        raise ValueError("verify with at least one secret")
    found: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower in _HEADERS:
            if lower in found:
                raise WebhookVerificationError(f"{lower} is repeated")
            found[lower] = value
    for name in _HEADERS:
        if name not in found:
            raise WebhookVerificationError(f"{name} is missing")
    message_id, timestamp, listed = (found[name] for name in _HEADERS)
    if not _ID.fullmatch(message_id):
        raise WebhookVerificationError("webhook-id is malformed")
    if not _TIMESTAMP.fullmatch(timestamp):
        raise WebhookVerificationError("webhook-timestamp is malformed")
    if abs(now_s - int(timestamp)) > tolerance_s:
        raise WebhookVerificationError("webhook-timestamp is out of tolerance")
    signatures = listed.split(" ", MAX_SIGNATURES)
    if len(signatures) > MAX_SIGNATURES:
        raise WebhookVerificationError("webhook-signature holds too many signatures")
    if not all(_SIGNATURE.fullmatch(one) or _OTHER_VERSION.fullmatch(one) for one in signatures):
        raise WebhookVerificationError("webhook-signature is malformed")
    genuine = False
    for key in keys:
        expected = _sign(key, message_id, timestamp, body).encode("ascii")
        for one in signatures:
            genuine |= hmac.compare_digest(expected, one.encode("ascii"))
    if not genuine:
        raise WebhookVerificationError("no signature matches")
    return message_id
