"""Amazon SNS signs what it posts, and asks once whether it may: both are settled here.

A message carries the address of a certificate and a signature over some of its members, each name and value on lines
of their own in order of names (docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html). The certificate
is trusted because of where it lies: only hosts of SNS itself, by HTTPS, are asked. They are also the only ones that are
told that a subscription is wanted.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from tocsin.delivery import egress
from tocsin.kernel.errors import Refusal, Retry

_HOST: Final = re.compile(r"sns\.[a-z0-9-]{3,32}\.amazonaws\.com(\.cn)?", re.ASCII)
_NOTIFICATION: Final = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_CONFIRMATION: Final = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
#: SignatureVersion → hash. Version 1 is what topics use unless told otherwise.
_HASHES: Final[Mapping[str, Callable[[], hashes.HashAlgorithm]]] = {"1": hashes.SHA1, "2": hashes.SHA256}
_MAX_CERTIFICATES: Final = 16


def string_to_sign(message: Mapping[str, Any]) -> bytes:
    """What SNS signs of a message."""
    names = _NOTIFICATION if message.get("Type") == "Notification" else _CONFIRMATION
    return "".join(f"{name}\n{message[name]}\n" for name in names if message.get(name) is not None).encode()


def _unproven(rule: str) -> Refusal:
    return Refusal("ERR_SIG_INVALID", f"The message is not signed by Amazon SNS: {rule}.")


class SnsMessages:
    """Checks messages of SNS, keeping the certificates it saw. `allow` holds (host, port) pairs that may stand for SNS
    besides its own hosts, as an emulator does; `fetch` gets a URL's body and raises Retry.
    """

    def __init__(self, allow: Collection[tuple[str, int]] = (), fetch: Callable[[str], bytes] | None = None) -> None:
        self._allow = allow
        self._fetch = fetch or self._get
        self._certificates: dict[str, x509.Certificate] = {}

    def check(self, message: Any) -> None:
        """Raises Refusal ERR_SIG_INVALID for a message that SNS did not sign, and Retry without its certificate."""
        held = message if isinstance(message, dict) else {}
        version, url = held.get("SignatureVersion"), held.get("SigningCertURL")
        if not isinstance(version, str) or version not in _HASHES or not isinstance(held.get("Signature"), str):
            raise _unproven("send Signature, and SignatureVersion 1 or 2")
        if not isinstance(url, str) or not self._of_sns(url) or not urlsplit(url).path.endswith(".pem"):
            raise _unproven("SigningCertURL is no address of SNS")
        key = self._certificate(url).public_key()
        if not isinstance(key, RSAPublicKey):
            raise _unproven("the certificate holds no RSA key")
        try:
            signature = base64.b64decode(held["Signature"], validate=True)
            key.verify(signature, string_to_sign(held), padding.PKCS1v15(), _HASHES[version]())
        except (binascii.Error, InvalidSignature):
            raise _unproven("the signature does not fit") from None

    def confirm(self, message: Mapping[str, Any]) -> bool:
        """Accept a subscription that a checked message asks for: whether SNS was told. Never raises, because the event
        that the message becomes holds the link for a person.
        """
        url = message.get("SubscribeURL")
        if message.get("Type") != "SubscriptionConfirmation" or not self._of_sns(url):
            return False
        try:
            self._fetch(str(url))
        except (Retry, Refusal):
            return False
        return True

    def _of_sns(self, url: Any) -> bool:
        try:
            parts = urlsplit(url if isinstance(url, str) else "")
            port = parts.port
        except ValueError:
            return False
        if (parts.hostname or "", port) in self._allow:
            return True
        return parts.scheme == "https" and parts.netloc == parts.hostname and bool(_HOST.fullmatch(parts.netloc))

    def _certificate(self, url: str) -> x509.Certificate:
        if url not in self._certificates:
            try:
                made = x509.load_pem_x509_certificate(self._fetch(url))
            except ValueError:
                raise _unproven("SigningCertURL holds no certificate") from None
            if len(self._certificates) >= _MAX_CERTIFICATES:
                self._certificates.clear()
            self._certificates[url] = made
        return self._certificates[url]

    def _get(self, url: str) -> bytes:
        try:
            target = egress.check(url, egress.resolve_dns, self._allow)
        except Refusal:
            raise _unproven("the address it names cannot be reached") from None
        answer = egress.get(target)
        if answer.status != 200:
            raise Retry(f"SNS answered {answer.status}", 5.0)
        return answer.body
