"""The CloudEvents SDK over HTTP: binary, structured, and a batch."""

import json
import sys

import requests
from cloudevents.core.bindings import http
from cloudevents.core.v1.event import CloudEvent

host, key = sys.argv[1:]


def event(name: str) -> CloudEvent:
    about = {"id": name, "source": "/shop/orders", "type": "com.example.order.failed", "subject": f"order/{name}"}
    return CloudEvent(attributes=about, data={"reason": "card declined"})


def post(body: bytes | str, headers: dict[str, str]) -> None:
    answer = requests.post(f"{host}/v1/events", body, headers={**headers, "X-Api-Key": key}, timeout=30)
    assert answer.status_code == 202, answer.text


for make, name in ((http.to_binary_event, "o-1"), (http.to_structured_event, "o-2")):
    message = make(event(name))
    post(message.body, dict(message.headers))
batch = [json.loads(http.to_structured_event(event(name)).body) for name in ("o-3", "o-4")]
post(json.dumps(batch), {"content-type": "application/cloudevents-batch+json"})
