"""What receivers read: CloudEvents for webhooks, text and plain HTML for mail. Senders' texts arrive here as
data.

Every string that an event brought is made harmless for the place it is put in: one line and visible controls
everywhere, escaped HTML in HTML, escaped Markdown in text (many readers render it), and headers without line
breaks. Mails load nothing from anywhere.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Any, Final

from tocsin.delivery.model import CHANNEL_FAILED, DIGEST, NOTICE, TEST, Channel, Json, NotificationRecord
from tocsin.kernel import clock
from tocsin.kernel.canonical import canonical_json

SOURCE: Final = "tocsin"
_TYPES: Final = {
    DIGEST: "dev.tocsin.digest",
    CHANNEL_FAILED: "dev.tocsin.channel.failed",
    TEST: "dev.tocsin.test",
    NOTICE: "dev.tocsin.notice",
}
_MARKDOWN = re.compile(r"([\\`*\[\]<>|~]|!(?=\[)|(?<!\w)_|_(?!\w)|^[#+-])")
_SPACES = re.compile(r"\s+")


def line(text: Any, limit: int = 200) -> str:
    """One printable line: white space collapsed, controls and bidi or zero-width characters shown as
    [U+202E].
    """
    flat = _SPACES.sub(" ", str(text)).strip()
    if not flat.isprintable():
        flat = "".join(c if c.isprintable() else f"[U+{ord(c):04X}]" for c in flat)
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def markdown(text: Any, limit: int = 200) -> str:
    """`line`, with whatever Markdown would read as a link, image, emphasis, code, table, heading or HTML
    escaped.
    """
    return _MARKDOWN.sub(r"\\\1", line(text, limit))


def _markup(text: Any, limit: int = 200) -> str:
    return html.escape(line(text, limit), quote=True)


def event_type(kind: str) -> str:
    """CloudEvents type, such as `dev.tocsin.incident.opened`."""
    return _TYPES.get(kind) or f"dev.tocsin.incident.{kind}"


def cloud_event(record: NotificationRecord) -> Json:
    """CloudEvents 1.0 in structured JSON. `id` is the webhook-id, so receivers that drop repeats by either do
    right.
    """
    return {
        "specversion": "1.0",
        "id": record.webhook_id,
        "source": SOURCE,
        "type": event_type(record.kind),
        "time": clock.rfc3339(record.payload.get("at", record.created_at)),
        "subject": record.incident_id,
        "datacontenttype": "application/json",
        "data": {"project": record.project, "trace_id": record.trace_id, **record.payload.get("data", {})},
    }


def webhook_body(record: NotificationRecord) -> bytes:
    """The bytes to sign and post; equal for every attempt of a record."""
    return canonical_json(cloud_event(record))


def mail(record: NotificationRecord, channel: Channel, sender: str, now: int) -> EmailMessage:
    """The mail of a record, addressed to the channel's recipients and nobody else.

    Built under email.policy.SMTP, which folds and encodes headers and refuses line breaks in them; Message-ID
    is a function of the record, and mails of one incident form one thread.
    """
    data = record.payload.get("data", {})
    subject, paragraphs = _letter(record.kind, data)
    domain = sender.rpartition("@")[2].rstrip(">") or "tocsin.invalid"
    message = EmailMessage(policy=SMTP)
    message["From"] = line(sender, 254)
    message["To"] = ", ".join(channel.to)
    message["Subject"] = line(subject, 150)
    message["Date"] = format_datetime(datetime.fromtimestamp(now // 1000, UTC))
    message["Message-ID"] = f"<{record.webhook_id}@{domain}>"
    if record.kind not in _TYPES:
        message["References"] = f"<{record.incident_id}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message["X-Tocsin-Webhook-Id"] = record.webhook_id
    message.set_content(_as_text(paragraphs), charset="utf-8")
    message.add_alternative(_as_html(paragraphs), subtype="html", charset="utf-8")
    return message


#: A paragraph is a heading and its lines; the renderers below decide how both are escaped.
Paragraph = tuple[str, Sequence[str]]


def _as_text(paragraphs: Sequence[Paragraph]) -> str:
    blocks = []
    for heading, lines in paragraphs:
        blocks.append("\n".join([markdown(heading), *(f"- {markdown(item, 500)}" for item in lines)]))
    return "\n\n".join(blocks) + "\n"


def _as_html(paragraphs: Sequence[Paragraph]) -> str:
    parts = ['<!doctype html><html lang="en"><meta charset="utf-8"><body>']
    for heading, lines in paragraphs:
        parts.append(f"<p><strong>{_markup(heading)}</strong></p>")
        if lines:
            parts.append("<ul>" + "".join(f"<li>{_markup(item, 500)}</li>" for item in lines) + "</ul>")
    return "".join(parts) + "</body></html>"


def _letter(kind: str, data: Mapping[str, Any]) -> tuple[str, list[Paragraph]]:
    if kind == DIGEST:
        return _digest_letter(data)
    if kind == CHANNEL_FAILED:
        subject = f"[Tocsin] channel {data.get('name', '')} stopped"
        return subject, [(subject, [str(data.get("reason", "")), *_links(data)])]
    if kind == TEST:
        return "[Tocsin] test message", [
            ("This channel works.", [f"project: {data.get('project', '')}", *_links(data)])
        ]
    if kind == NOTICE:
        notice = data.get("notice", {})
        subject = f"[Tocsin] {str(notice.get('tier', '')).upper()} {notice.get('title', '')}"
        return subject, [(subject, [str(notice.get("text", "")), f"about: {notice.get('about', '')}", *_links(data)])]
    incident = data.get("incident", {})
    tier = str(incident.get("tier", "")).upper()
    title = str(incident.get("title", ""))
    facts = [
        f"{name.replace('_', ' ')}: {_join(incident[name])}"
        for name in ("status", "score", "events", "services", "entities", "sources", "resolution")
        if incident.get(name) not in (None, [], "")
    ]
    paragraphs: list[Paragraph] = [(f"{tier} incident {kind}: {title}", facts)]
    reasons = [_reason(item) for item in data.get("explanation", ())]
    if reasons:
        paragraphs.append(("Why", reasons[:12]))
    if _links(data):
        paragraphs.append(("Where", _links(data)))
    return f"[Tocsin] {tier} {kind}: {title}", paragraphs


def _digest_letter(data: Mapping[str, Any]) -> tuple[str, list[Paragraph]]:
    withheld = data.get("withheld", {})
    late = " (late)" if data.get("late") else ""
    subject = f"[Tocsin] {data.get('mode', '')} digest{late}: {withheld.get('total', 0)} withheld"
    head = f"Digest of {data.get('slot', '')}{late}, project {data.get('project', '')}"
    paragraphs: list[Paragraph] = [
        (
            head,
            [f"withheld because of {reason}: {count}" for reason, count in withheld.get("by_reason", {}).items()],
        )
    ]
    rows = [
        f"{item['tier'].upper()} {item['title']} ({item['incident_id']}): "
        f"{item['count']} withheld, last {item['kind']} at {item['at']}"
        for item in withheld.get("incidents", ())
    ]
    if rows:
        paragraphs.append(("Withheld since the last digest", rows))
    if withheld.get("more"):
        paragraphs.append((f"and {withheld['more']} more incidents", []))
    open_rows = [
        f"{str(item.get('tier', '')).upper()} {item.get('title', '')} ({item.get('id', '')})"
        for item in data.get("open_incidents", ())
    ]
    paragraphs.append(("Open incidents", open_rows or ["none"]))
    return subject, paragraphs


def _links(data: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {href}" for name, href in data.get("links", {}).items()]


def _join(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_reason(item) for item in value[:20])
    return str(value)


def _reason(item: Any) -> str:
    """A reason in words, whether it came as a text or as an object with one."""
    if isinstance(item, Mapping):
        if "type" in item and "id" in item:
            return f"{item['type']}:{item['id']}"
        return str(item.get("text") or item.get("words") or ", ".join(f"{k}={v}" for k, v in item.items()))
    return str(item)
