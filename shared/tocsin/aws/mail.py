"""Mail out: SES (version 1 API, which every platform has) or an SMTP server for self-hosting."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable, Sequence
from email.message import EmailMessage
from email.utils import parseaddr
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from tocsin.delivery.ports import SendResult

_TIMEOUT_S: Final = 10.0


def _ms(started: float) -> int:
    return int((time.perf_counter() - started) * 1000)


class SesMail:
    """Implements MailSender by SendRawEmail; recipients are given apart from the message, so headers add
    none.
    """

    def __init__(self, client: Any, sender: str) -> None:
        self._client = client
        self.sender = sender

    def send(self, message: EmailMessage, to: Sequence[str]) -> SendResult:
        started = time.perf_counter()
        try:
            self._client.send_raw_email(
                Source=self.sender, Destinations=list(to), RawMessage={"Data": message.as_bytes()}
            )
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
            return SendResult(status, f"SES: {error.response['Error'].get('Code')}", ms=_ms(started))
        except BotoCoreError as error:
            return SendResult(0, f"SES: {type(error).__name__}", ms=_ms(started))
        return SendResult(200, ms=_ms(started))


class SmtpMail:
    """Implements MailSender by SMTP (RFC 5321), with STARTTLS where the server offers it."""

    def __init__(self, server: str, sender: str, connect: Callable[..., smtplib.SMTP] = smtplib.SMTP) -> None:
        """`server` is host or host:port (25 when left out)."""
        host, _, port = server.partition(":")
        self._host, self._port = host, int(port or 25)
        self._connect = connect
        self.sender = sender

    def send(self, message: EmailMessage, to: Sequence[str]) -> SendResult:
        started = time.perf_counter()
        try:
            with self._connect(self._host, self._port, timeout=_TIMEOUT_S) as session:
                session.ehlo()
                if session.has_extn("starttls"):
                    session.starttls()
                    session.ehlo()
                refused = session.send_message(message, parseaddr(self.sender)[1], list(to))
        except smtplib.SMTPRecipientsRefused as error:
            code = next((int(answer[0]) for answer in error.recipients.values()), 550)
            return SendResult(code, "SMTP: every recipient was refused", ms=_ms(started))
        except smtplib.SMTPResponseException as error:
            return SendResult(error.smtp_code, f"SMTP: {type(error).__name__}", ms=_ms(started))
        except (smtplib.SMTPException, OSError) as error:
            return SendResult(0, f"SMTP: {type(error).__name__}", ms=_ms(started))
        if refused:
            # Sending again would reach the others twice; who was refused is on the record as an error of a
            # success.
            return SendResult(250, f"SMTP: {len(refused)} of {len(to)} recipients were refused", ms=_ms(started))
        return SendResult(250, ms=_ms(started))


class NoMail:
    """Implements MailSender where the deployment has no sender address: every mail fails with the remedy."""

    sender = "tocsin@localhost.invalid"

    def send(self, message: EmailMessage, to: Sequence[str]) -> SendResult:  # noqa: ARG002 - the port's shape
        return SendResult(0, "e-mail is off: the deployment's MailFrom parameter is empty")
