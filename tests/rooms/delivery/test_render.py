"""What receivers read, and that nothing an event says can do more than be read."""

from __future__ import annotations

import json
from email import message_from_bytes, policy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.delivery_fakes import mailbox
from tocsin.delivery import render
from tocsin.delivery.model import NotificationRecord

NOW = 1_800_000_000_000
SENDER = "Tocsin <alarm@tocsin.example>"
EXFILTRATION = "![x](https://evil.example/?q=) [click](https://evil.example) <img src=https://evil.example/p.png>"


def _record(kind: str = "opened", **incident: Any) -> NotificationRecord:
    content = {
        "id": "inc_1",
        "title": "disk full",
        "tier": "high",
        "score": 0.8,
        "services": ["db"],
        **incident,
    }
    return NotificationRecord(
        project="acme",
        incident_id="inc_1",
        seq=1,
        kind=kind,
        channel_id="chn_mail",
        decision="pending",
        created_at=NOW,
        payload={
            "at": NOW,
            "data": {"incident": content, "explanation": [{"text": incident.get("title", "why")}]},
        },
    )


def _sent(record: NotificationRecord, **channel: Any) -> Any:
    """The mail as a receiver parses it from the wire."""
    return message_from_bytes(render.mail(record, mailbox(**channel), SENDER, NOW).as_bytes(), policy=policy.default)


def test_the_body_is_a_cloud_event_with_stable_bytes() -> None:
    record = _record()
    event = json.loads(render.webhook_body(record))
    assert {key: event[key] for key in ("specversion", "source", "type", "subject", "time")} == {
        "specversion": "1.0",
        "source": "tocsin",
        "type": "dev.tocsin.incident.opened",
        "subject": "inc_1",
        "time": "2027-01-15T08:00:00.000Z",
    }
    assert event["id"] == record.webhook_id
    later = record.step(decision="retrying", next_at=NOW + 5)
    assert render.webhook_body(later) == render.webhook_body(record)


def test_header_injection_stays_text() -> None:
    title = "down\r\nBcc: evil@example.org\r\n\r\n<script>alert(1)</script>"
    message = _sent(_record(title=title))
    assert message.get_all("Bcc") is None
    assert message.get_all("To") == ["duty@example.org"]
    assert "Bcc: evil@example.org" in message["Subject"]
    assert "\n" not in message["Subject"]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_no_title_adds_a_header_or_a_recipient(title: str) -> None:
    plain, odd = _sent(_record()), _sent(_record(title=title))
    assert odd.keys() == plain.keys()
    assert odd["To"] == plain["To"]
    assert odd["From"] == plain["From"]
    assert str(odd["Message-ID"]).strip() == str(plain["Message-ID"]).strip()


def test_markdown_and_html_are_inert() -> None:
    message = _sent(_record(title=EXFILTRATION))
    text = message.get_body(("plain",)).get_content()
    page = message.get_body(("html",)).get_content()
    assert "![" not in text
    assert "](" not in text.replace("\\]", "")
    assert "\\[x\\](https" in text
    assert "<img" not in text.replace("\\<", "")
    for loader in ("<img", "<script", "<link", "<style", 'src="', "href=", "url("):
        assert loader not in page
    assert "&lt;img src=https://evil.example/p.png&gt;" in page


def test_bidi_and_zero_width_characters_become_visible() -> None:
    message = _sent(_record(title="safe\u202eexe.gpj\u200b \u2066x"))
    for text in (
        message["Subject"],
        message.get_body(("plain",)).get_content().replace("\\", ""),
        message.get_body(("html",)).get_content(),
    ):
        assert "safe[U+202E]exe.gpj[U+200B] [U+2066]x" in text
        assert not {"\u202e", "\u200b", "\u2066"} & set(text)


def test_mails_of_one_incident_form_a_thread_and_repeats_carry_one_id() -> None:
    first, second = _sent(_record()), _sent(_record("resolved"))
    assert first["References"] == second["References"] == "<inc_1@tocsin.example>"
    record = _record()
    assert first["Message-ID"] == f"<{record.webhook_id}@tocsin.example>"
    assert _sent(record)["Message-ID"] == first["Message-ID"]
    assert first["Auto-Submitted"] == "auto-generated"


def test_words_that_only_look_like_markdown_are_left_alone() -> None:
    assert render.markdown("disk_full on db-1 (80%): 3 + 4") == "disk_full on db-1 (80%): 3 + 4"
    assert render.markdown("_x_ *y* `z` # h") == "\\_x\\_ \\*y\\* \\`z\\` # h"
    assert render.markdown("# h") == "\\# h"


def test_long_texts_are_cut_where_it_shows() -> None:
    assert len(render.line("x" * 5000)) == 200
    assert render.line("x" * 5000).endswith("…")


def test_every_kind_of_letter_has_a_subject() -> None:
    for kind in ("opened", "merged", "digest", "channel_failed", "test"):
        message = _sent(_record(kind))
        assert message["Subject"].startswith("[Tocsin] ")
        assert render.cloud_event(_record(kind))["type"].startswith("dev.tocsin.")
