"""OCSF severity of what senders say: one table of words and numbers per family of sources.

`severity_id` values (OCSF 1.x, base event): 0 unknown, 1 informational, 2 low, 3 medium, 4 high, 5 critical,
6 fatal, 99 other (said, but not understood). The family of a source is the first known word in its name, so
`prometheus`, `prod/prometheus-eu` and `aws.cloudwatch` need no configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

UNKNOWN: Final = 0
OTHER: Final = 99

#: OCSF caption of each severity id.
CAPTIONS: Final[Mapping[int, str]] = {
    0: "unknown",
    1: "informational",
    2: "low",
    3: "medium",
    4: "high",
    5: "critical",
    6: "fatal",
    99: "other",
}

#: Words that mean the same nearly everywhere. A family's own table is asked first.
GENERIC: Final[Mapping[str, int]] = {
    **dict.fromkeys(("unknown", "undefined", "none", "n/a", "not classified"), 0),
    **dict.fromkeys(("info", "informational", "information", "debug", "trace", "verbose", "log", "normal"), 1),
    **dict.fromkeys(("ok", "okay", "success", "healthy", "up", "p5", "sev5", "s5"), 1),
    **dict.fromkeys(("low", "minor", "notice", "p4", "sev4", "s4"), 2),
    **dict.fromkeys(("medium", "moderate", "warning", "warn", "average", "degraded", "p3", "sev3", "s3"), 3),
    **dict.fromkeys(("high", "error", "err", "major", "severe", "alarm", "failure", "p2", "sev2", "s2"), 4),
    **dict.fromkeys(("critical", "crit", "alert", "page", "blocker", "down", "urgent"), 5),
    **dict.fromkeys(("p1", "sev1", "s1"), 5),
    **dict.fromkeys(("fatal", "emergency", "emerg", "panic", "disaster", "p0", "sev0", "s0"), 6),
}

#: Numbers of a source without a family: OCSF's own ids.
GENERIC_NUMBERS: Final[Mapping[int, int]] = {n: n for n in (0, 1, 2, 3, 4, 5, 6, 99)}

#: What differs from GENERIC, by family. Where the numbers or words are defined stands beside each.
WORDS: Final[Mapping[str, Mapping[str, int]]] = {
    # Labels by convention (awesome-prometheus-alerts, kube-prometheus); `none` is the Watchdog.
    "prometheus": {"none": 1, "ticket": 3},
    # StateValue of an alarm: docs.aws.amazon.com/AmazonCloudWatch AlarmThatSendsEmail.
    "cloudwatch": {"alarm": 4, "insufficient_data": 2, "ok": 1},
    # Event payload `level`: develop.sentry.dev/sdk/event-payloads.
    "sentry": {"sample": 1},
    # Events API v2 `severity` (critical, error, warning, info) and incident urgency (high, low).
    "pagerduty": {"high": 4, "low": 2},
    # RFC 5424 §6.2.1 and the keywords of syslog(3).
    "syslog": {"alert": 5, "notice": 2},
    # Plugin states and host states: nagios-plugins development guidelines.
    "nagios": {"unknown": 0, "unreachable": 4, "pending": 1},
    # core/v1 Event `type`.
    "k8s": {"normal": 1, "warning": 3},
    # Monitor states: docs.datadoghq.com/api events `alert_type`.
    "datadog": {"user_update": 1, "recommendation": 1, "snapshot": 1, "alert": 4, "no data": 3},
    # Trigger severities: zabbix.com/documentation, trigger configuration.
    "zabbix": {"average": 3, "high": 4},
}


def _bands(*bands: tuple[int, int, int]) -> dict[int, int]:
    return {n: level for first, last, level in bands for n in range(first, last + 1)}


#: Numbers by family.
NUMBERS: Final[Mapping[str, Mapping[int, int]]] = {
    # RFC 5424 §6.2.1: 0 emergency .. 7 debug.
    "syslog": {0: 6, 1: 5, 2: 5, 3: 4, 4: 3, 5: 2, 6: 1, 7: 1},
    # Plugin exit codes: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    "nagios": {0: 1, 1: 3, 2: 5, 3: 0},
    # 0 not classified, 1 information, 2 warning, 3 average, 4 high, 5 disaster.
    "zabbix": {0: 0, 1: 1, 2: 3, 3: 3, 4: 4, 5: 6},
    # OpenTelemetry logs data model, SeverityNumber.
    "otel": {0: 0, **_bands((1, 12, 1), (13, 16, 3), (17, 20, 4), (21, 24, 6))},
    # Python logging levels.
    "python": {0: 0, 10: 1, 20: 1, 30: 3, 40: 4, 50: 5},
    # GuardDuty finding severity: low 1-3, medium 4-6, high 7-8, critical 9-10.
    "guardduty": _bands((1, 3, 2), (4, 6, 3), (7, 8, 4), (9, 10, 5)),
    # Wazuh rule classification, levels 0 to 15 (documentation.wazuh.com, rules classification).
    "wazuh": _bands((0, 3, 1), (4, 6, 2), (7, 11, 3), (12, 14, 4), (15, 15, 5)),
    # Suricata rule priority: 1 is the highest.
    "suricata": {1: 4, 2: 3, 3: 2, 4: 1},
}

#: Words in a source's name that tell its family.
FAMILIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("prometheus", "alertmanager", "grafana", "mimir", "thanos"), "prometheus"),
    "cloudwatch": "cloudwatch",
    "sentry": "sentry",
    "pagerduty": "pagerduty",
    **dict.fromkeys(("syslog", "rsyslog", "journald", "journal"), "syslog"),
    **dict.fromkeys(("nagios", "icinga", "icinga2", "sensu", "checkmk", "naemon"), "nagios"),
    **dict.fromkeys(("k8s", "kubernetes", "kube", "eks", "gke", "aks"), "k8s"),
    "datadog": "datadog",
    "zabbix": "zabbix",
    **dict.fromkeys(("otel", "opentelemetry", "otlp"), "otel"),
    **dict.fromkeys(("python", "logging"), "python"),
    "guardduty": "guardduty",
    "wazuh": "wazuh",
    "suricata": "suricata",
}

_NAME_PARTS = re.compile(r"[a-z0-9]+")
_INTEGER = re.compile(r"[+-]?[0-9]{1,6}", re.ASCII)
_NOTHING: Final[Mapping[str, int]] = {}


@lru_cache(maxsize=1024)
def family(source: str) -> str | None:
    """Family of a source's name, or None when no known word is in it."""
    for part in _NAME_PARTS.findall(source[:200].lower()):
        if part in FAMILIES:
            return FAMILIES[part]
    return None


def severity_id(source: str, severity_raw: str | int | None) -> int:
    """OCSF severity_id of `severity_raw` as `source` means it: 0 when nothing was said, 99 when not
    understood.
    """
    if severity_raw is None or severity_raw == "":
        return UNKNOWN
    return _severity_id(source[:200], severity_raw if isinstance(severity_raw, int) else severity_raw[:64])


@lru_cache(maxsize=4096)
def _severity_id(source: str, severity_raw: str | int) -> int:
    of = family(source)
    if isinstance(severity_raw, str):
        word = severity_raw.strip().casefold()
        if not word:
            return UNKNOWN
        known = WORDS.get(of or "", _NOTHING).get(word, GENERIC.get(word))
        if known is not None:
            return known
        if not _INTEGER.fullmatch(word):
            return OTHER
        severity_raw = int(word)
    return NUMBERS.get(of or "", GENERIC_NUMBERS).get(severity_raw, OTHER)
