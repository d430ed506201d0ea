"""VictorOps's REST endpoint, which has no SDK: posts by `requests`, as its page shows."""

import sys

import requests

host, key = sys.argv[1:]
url = f"{host}/integrations/generic/20131114/alert/{key}/team"
for message_type in ("CRITICAL", "ACKNOWLEDGEMENT", "RECOVERY"):
    about = {"entity_id": "web-1/disk", "entity_display_name": "Disk / is 97 % full", "state_message": "3 % left"}
    answer = requests.post(url, json={"message_type": message_type, **about}, timeout=30)
    assert answer.json() == {"result": "success", "entity_id": "web-1/disk"}, answer.text
