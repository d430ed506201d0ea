"""The account of notifications: what was sent, what failed, what was withheld and why."""

from __future__ import annotations

from typing import Any

from tocsin.api.call import Call
from tocsin.api.ports import ApiRooms, Json, Page
from tocsin.kernel.http import Answer


def list_notifications(call: Call, rooms: ApiRooms) -> Answer:
    """Newest first; the channel is looked at after reading, so a page may hold fewer than asked for."""
    incident, decision, channel = (call.query.get(name) for name in ("incident", "decision", "channel"))

    def read(position: Any, limit: int) -> Page[Json]:
        page = rooms.notifications.list_for(
            call.project,
            incident_id=incident,
            decision=decision,
            limit=limit,
            cursor=position,
            now=rooms.now(),
        )
        items = [record.as_json() for record in page.records if channel in (None, record.channel_id)]
        return Page(items, page.cursor, page.scanned)

    return call.listing(rooms, [incident, decision, channel], read)
