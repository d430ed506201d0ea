"""SentinelRed: probes against the own deployment, which say whether what it promises holds from outside.

Each probe sends what an attacker would, over HTTP and with credentials made for it alone, and expects a refusal. A
probe `held` when every answer was the expected one. Probes change nothing but what they are expected to leave: events
of the source `tocsin.sentinelred` in the caller's project. The only target there is is the stack itself; it is compared
as a whole, never parsed, so no spelling of another address can pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tocsin.access import keys
from tocsin.access.principals import Principal
from tocsin.access.tokens import Tokens
from tocsin.defense.ports import Json
from tocsin.kernel import clock
from tocsin.kernel.errors import Detail, Refusal
from tocsin.kernel.ids import new_id

FLAG: Final = "ENABLE_SENTINELRED"
SOURCE: Final = "tocsin.sentinelred"
#: Where a channel that reached it would give an attacker the credentials of the machine (link-local, RFC 3927).
CANARY: Final = "http://169.254.169.254/latest/meta-data/"
#: One byte more than a body may have.
OVERSIZED: Final = 1_048_577


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: status (0: none came), error code ("" for none), and what was made of each event."""

    status: int
    code: str = ""
    items: Sequence[Mapping[str, Any]] = ()


class Http(Protocol):
    """Port: one request to the stack itself."""

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """The answer; no redirect is followed. Raises Retry when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Aim:
    """What probes work with. `tokens` makes tokens as of a time in Unix ms, so that an expired one can be had."""

    caller: Principal
    env: str
    http: Http
    tokens: Callable[[int], Tokens]
    now: int

    def bearer(self, scopes: Sequence[str], at: int | None = None) -> dict[str, str]:
        """A header with an access token of these scopes, made at a time (now when left out)."""
        token = self.tokens(self.now if at is None else at).issue(self.caller, list(scopes), 60)["token"]
        return {"Authorization": f"Bearer {token}"}

    def send(self, event: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        sent = {"Content-Type": "application/json", **headers}
        return self.http("POST", "/v1/events", sent, json.dumps(event).encode())


#: What one request of a probe met, and whether that was right.
Step = tuple[str, Reply, bool]


def _weak_key(aim: Aim) -> list[Step]:
    """Keys that look like keys and were never made, from the well known to the well formed."""
    wrong, _ = keys.mint(aim.env)
    steps: list[Step] = []
    for label, text in (("a word", "test"), ("a made-up key", wrong), ("the alphabet", f"tcn_{aim.env}_" + "0" * 50)):
        reply = aim.http("GET", "/v1/events", {"X-Api-Key": text}, b"")
        steps.append((label, reply, reply.status == 401))
    return steps


def _replay(aim: Aim) -> list[Step]:
    """One event twice, then with other content under its id: stored once, and never changed."""
    headers = aim.bearer(["ingest:write"])
    event = {"id": new_id("probe", aim.now), "source": SOURCE, "type": "probe.replay", "title": "probe"}
    event |= {"severity_raw": "info"}
    first, again = aim.send(event, headers), aim.send(event, headers)
    names = {item.get("event_id") for reply in (first, again) for item in reply.items}
    both = aim.http(
        "POST",
        "/v1/events",
        {"Content-Type": "application/json", **headers},
        json.dumps([event, event | {"title": "other"}]).encode(),
    )
    refused = [item for item in both.items if item.get("status") == "refused"]
    return [
        ("the first time", first, first.status == 202),
        ("again", again, again.status == 202 and len(names) == 1),
        ("with other content", both, both.status in (207, 422) and bool(refused)),
    ]


def _scope_escalation(aim: Aim) -> list[Step]:
    """A token that may only read events asks for more."""
    narrow = aim.bearer(["events:read"])
    wide = json.dumps({"name": "probe", "scopes": ["admin:*"]}).encode()
    typed = {"Content-Type": "application/json", **narrow}
    tried = {
        "make a key": aim.http("POST", "/v1/keys", typed, wide),
        "make a token": aim.http("POST", "/v1/tokens", typed, b"{}"),
        "send events": aim.send({"id": "p", "source": SOURCE, "type": "t", "title": "t"}, narrow),
    }
    return [(label, reply, (reply.status, reply.code) == (403, "ERR_SCOPE")) for label, reply in tried.items()]


def _oversized_body(aim: Aim) -> list[Step]:
    """A body of one byte more than may be sent."""
    headers = {"Content-Type": "application/json", **aim.bearer(["ingest:write"])}
    reply = aim.http("POST", "/v1/events", headers, b'"' + b"x" * (OVERSIZED - 2) + b'"')
    return [("one byte too many", reply, reply.status == 413)]


def _expired_token(aim: Aim) -> list[Step]:
    """A token that this deployment signed itself, an hour ago for a minute."""
    reply = aim.http("GET", "/v1/events", aim.bearer(["events:read"], aim.now - clock.HOUR), b"")
    return [("an hour old", reply, reply.status == 401)]


def _egress_canary(aim: Aim) -> list[Step]:
    """A channel to the metadata address, in several spellings."""
    headers = {"Content-Type": "application/json", **aim.bearer(["notify:write"])}
    steps: list[Step] = []
    for url in (CANARY, CANARY.replace("169.254.169.254", "2852039166"), "http://[::ffff:169.254.169.254]/"):
        body = json.dumps({"kind": "webhook", "name": "probe", "url": url}).encode()
        reply = aim.http("POST", "/v1/channels", headers, body)
        steps.append((url, reply, reply.status == 400 and reply.code in ("ERR_EGRESS_DENIED", "ERR_URL")))
    return steps


#: Probes by name: which scopes of the caller they need, and what they do.
PROBES: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Aim], list[Step]]]]] = {
    "weak_key": ((), _weak_key),
    "replay": (("ingest:write",), _replay),
    "scope_escalation": (("events:read",), _scope_escalation),
    "oversized_body": (("ingest:write",), _oversized_body),
    "expired_token": (("events:read",), _expired_token),
    "egress_canary": (("notify:write",), _egress_canary),
}


def check_target(target: str | None, own: str) -> None:
    """Refuse 403 ERR_TARGET_DENIED every target but the stack itself, which is also what no target means."""
    if target is not None and target.rstrip("/") != own.rstrip("/"):
        fix = "leave it out: the only target is this deployment's own API"
        raise Refusal("ERR_TARGET_DENIED", "That is not this deployment.", [Detail("target", "own-stack", fix)])


def run(aim: Aim, names: Sequence[str], keep: Callable[[str, Json], None]) -> Json:
    """Carry out probes one after another; `keep(run id, probe)` leaves the evidence of each.

    A probe for which the caller lacks a scope is refused before anything is sent (ERR_SCOPE).
    """
    for name in names:
        for scope in PROBES[name][0]:
            if not aim.caller.allows(scope):
                detail = Detail("probes", scope, f"send a key that has {scope}, or leave {name} out")
                raise Refusal("ERR_SCOPE", f"The probe {name} needs {scope}.", [detail])
    run_id = new_id("run", aim.now)
    found: list[Json] = []
    for name in names:
        steps = PROBES[name][1](aim)
        probe = {
            "name": name,
            "held": all(right for _, _, right in steps),
            "met": [
                {"step": label, "status": reply.status, "code": reply.code or None, "right": right}
                for label, reply, right in steps
            ],
        }
        keep(run_id, probe)
        found.append(probe)
    return {"id": run_id, "held": all(probe["held"] for probe in found), "probes": found}
