"""Who an alert is, whatever way it came: its label set.

Prometheus and Alertmanager hold that two alerts with the same labels are the same alert, and name it by a
fingerprint: FNV-1a, 64 bits, over the labels in order of their names, each name and value followed by 0xFF
(prometheus/common, model/signature.go). The same number stands in the webhook's `fingerprint`, in `amtool -o
json` and in the web pages of Alertmanager, so people can search for it.

Relays lose the fingerprint and keep the labels, as a list in a text that Alertmanager's default templates
write; `listed` reads such lists:

    Labels:
     - alertname = InstanceDown
     - instance = db-1:9100
    Annotations:
     - summary = db-1 is down
    Source: http://prometheus.example/graph?…

Newer versions put the alerts into PagerDuty's details as JSON instead, which is read as well.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tocsin.kernel import strict_json
from tocsin.kernel.errors import Refusal

_OFFSET: Final = 14695981039346656037
_PRIME: Final = 1099511628211
_LABEL = re.compile(r" - ([a-zA-Z_][a-zA-Z0-9_.:/-]*) = (.*)", re.DOTALL)
_FIRING: Final = "Alerts Firing:"
_RESOLVED: Final = "Alerts Resolved:"
#: Alerts read from one text; Alertmanager's own limits of a message are far below.
MAX_LISTED: Final = 500


def fingerprint(labels: Mapping[str, str]) -> str:
    """16 hexadecimal digits that name a label set, as Alertmanager names it. Labels with empty values do not count."""
    total = _OFFSET
    for name in sorted(labels):
        if labels[name]:
            for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
                total = ((total ^ byte) * _PRIME) & 0xFFFFFFFFFFFFFFFF
    return f"{total:016x}"


def _blocks(lines: list[str]) -> Iterator[list[str]]:
    block: list[str] = []
    for line in lines:
        if line == "Labels:" and block:
            yield block
            block = []
        if line == "Labels:" or block:
            block.append(line)
    if block:
        yield block


def _alert(block: list[str], status: str) -> dict[str, Any] | None:
    """One alert of a list; a line that is no pair continues the value before it. None when it has no label."""
    parts: dict[str, dict[str, list[str]]] = {"labels": {}, "annotations": {}}
    part, last, url = parts["labels"], "", ""
    for line in block[1:]:
        pair = _LABEL.fullmatch(line)
        if line == "Annotations:":
            part, last = parts["annotations"], ""
        elif line.startswith("Source: ") or line == "Source:":
            url = line[8:]
            break
        elif pair and pair[1] not in part:
            last = pair[1]
            part[last] = [pair[2]]
        elif last:
            part[last].append(line)
        elif line:
            return None
    if not parts["labels"]:
        return None
    texts = {name: {key: "\n".join(lines) for key, lines in held.items()} for name, held in parts.items()}
    return {"status": status, **texts, **({"generatorURL": url} if url else {})}


def _shaped(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("labels"), dict)
        and bool(value["labels"])
        and all(isinstance(one, str) for one in value["labels"].values())
    )


def listed(value: Any, status: str = "firing") -> list[dict[str, Any]]:
    """Alerts {status, labels, annotations, generatorURL} in a text or JSON of Alertmanager's default templates.

    `status` is of a list under no heading; "Alerts Firing:" and "Alerts Resolved:" set it for what follows. Empty
    when there is anything else in it, so that a half-understood list never names alerts wrongly.
    """
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = strict_json.read(value.encode("utf-8", "surrogatepass"))
        except Refusal:
            return []
    if isinstance(value, list):
        if not value or len(value) > MAX_LISTED or not all(_shaped(one) for one in value):
            return []
        return [{**one, "status": one.get("status", status)} for one in value]
    if not isinstance(value, str) or "Labels:\n" not in value:
        return []
    found: list[dict[str, Any] | None] = []
    section: list[str] = []
    for line in [*value.split("\n"), _RESOLVED]:
        if line in (_FIRING, _RESOLVED):
            found += [_alert(block, status) for block in _blocks(section)]
            section, status = [], "firing" if line == _FIRING else "resolved"
        else:
            section.append(line)
    alerts = [one for one in found if one is not None]
    return alerts if len(alerts) == len(found) <= MAX_LISTED else []


def unlisted(value: Any) -> Any:
    """What stands around the alerts that `listed` finds in a value: a text without their blocks, or an empty list."""
    if not isinstance(value, str) or value.lstrip()[:1] == "[":
        return []
    kept, inside = [], False
    for line in value.split("\n"):
        if line == "Labels:":
            inside = True
        elif line in (_FIRING, _RESOLVED):
            inside = False
        if not inside:
            kept.append(line)
    return "\n".join(kept).strip("\n")


def group_of(group_key: str) -> str:
    """The name that Alertmanager gives a group towards PagerDuty, Opsgenie and VictorOps: SHA-256 of its key."""
    return hashlib.sha256(group_key.encode()).hexdigest()
