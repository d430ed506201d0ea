"""Opsgenie's own SDK: an alert is made, acknowledged and closed by its alias."""

import sys

import opsgenie_sdk

host, key = sys.argv[1:]
configuration = opsgenie_sdk.Configuration()
configuration.host = host
configuration.api_key["Authorization"] = key
alerts = opsgenie_sdk.AlertApi(opsgenie_sdk.ApiClient(configuration=configuration))
alert = opsgenie_sdk.CreateAlertPayload(
    message="Disk / is 97 % full",
    alias="web-1/disk",
    priority="P1",
    entity="web-1",
    tags=["disk"],
    details={"free": "3 %"},
)
made = alerts.create_alert(alert)
assert made.result == "Request will be processed", made
assert made.request_id, made
by_alias = {"identifier": "web-1/disk", "identifier_type": "alias"}
alerts.acknowledge_alert(**by_alias, acknowledge_alert_payload=opsgenie_sdk.AcknowledgeAlertPayload(note="looking"))
alerts.close_alert(**by_alias, close_alert_payload=opsgenie_sdk.CloseAlertPayload(note="cleaned up"))
