"""The services of the api function: one per keyed operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from tocsin.access.principals import Principal
from tocsin.api import (
    access,
    calibration,
    channels,
    events,
    front,
    health,
    incidents,
    journal,
    notifications,
    privacy,
    topology,
)
from tocsin.api.call import Service
from tocsin.api.ports import ApiRooms
from tocsin.kernel.http import Answer, Request

SERVICES: Final[Mapping[str, Service]] = {
    "list_events": events.list_events,
    "get_event": events.get_event,
    "explain_event": events.explain_event,
    "list_refusals": events.list_refusals,
    "list_incidents": incidents.list_incidents,
    "get_incident": incidents.get_incident,
    "change_incident": incidents.change_incident,
    "merge_incidents": incidents.merge_incidents,
    "split_incident": incidents.split_incident,
    "list_projects": access.list_projects,
    "create_project": access.create_project,
    "get_project": access.get_project,
    "change_project": access.change_project,
    "delete_project": privacy.delete_project,
    "create_export": privacy.create_export,
    "get_export": privacy.get_export,
    "find_subject": privacy.find_subject,
    "erase_subject": privacy.erase_subject,
    "get_receipt": privacy.get_receipt,
    "list_keys": access.list_keys,
    "create_key": access.create_key,
    "get_key": access.get_key,
    "change_key": access.change_key,
    "rotate_key": access.rotate_key,
    "revoke_key": access.revoke_key,
    "list_people": access.list_people,
    "add_person": access.add_person,
    "change_person": access.change_person,
    "remove_person": access.remove_person,
    "list_approvals": access.list_approvals,
    "request_approval": access.request_approval,
    "get_approval": access.get_approval,
    "approve": access.approve,
    "reject": access.reject,
    "create_token": access.create_token,
    "list_token_keys": access.list_token_keys,
    "rotate_token_keys": access.rotate_token_keys,
    "get_usage": access.get_usage,
    "get_topology": topology.get_topology,
    "put_topology": topology.put_topology,
    "get_calibration": calibration.get_calibration,
    "fit_calibration": calibration.fit_calibration,
    "roll_back_calibration": calibration.roll_back_calibration,
    "list_channels": channels.list_channels,
    "create_channel": channels.create_channel,
    "get_channel": channels.get_channel,
    "change_channel": channels.change_channel,
    "delete_channel": channels.delete_channel,
    "test_channel": channels.test_channel,
    "rotate_channel": channels.rotate_channel,
    "get_routing": channels.get_routing,
    "put_routing": channels.put_routing,
    "try_routing": channels.try_routing,
    "list_notifications": notifications.list_notifications,
    "list_journal": journal.list_entries,
    "get_checkpoint": journal.get_checkpoint,
    "prove_consistency": journal.prove_consistency,
    "get_journal_entry": journal.get_entry,
    "list_healings": health.list_healings,
    "get_parts": health.get_parts,
    "get_metrics": health.get_metrics,
}


def dispatch(request: Request, principal_of: Callable[[Request], Principal], rooms: ApiRooms) -> Answer:
    """Answer one request to a keyed route of the api function; see front.answer."""
    return front.answer(request, principal_of, rooms, SERVICES)
