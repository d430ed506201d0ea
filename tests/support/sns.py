"""A stand-in for Amazon SNS: an RSA key, its certificate, and messages signed as SNS signs them."""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID


class Sns:
    """Signs messages. `url` is where its certificate is said to lie."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM)

    def signed(self, message: Mapping[str, Any], version: str = "1") -> dict[str, Any]:
        """A message with SigningCertURL, SignatureVersion and Signature; the text signed is spelt out here anew."""
        if message["Type"] == "Notification":
            names = [
                "Message",
                "MessageId",
                *(["Subject"] if "Subject" in message else []),
                "Timestamp",
                "TopicArn",
                "Type",
            ]
        else:
            names = ["Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        text = "".join(f"{name}\n{message[name]}\n" for name in names).encode()
        algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()
        signature = base64.b64encode(self._key.sign(text, padding.PKCS1v15(), algorithm)).decode()
        return {**message, "SigningCertURL": self.url, "SignatureVersion": version, "Signature": signature}
