"""What an event costs in processor time on its whole way, stage by stage, without any network.

The stages are the product's own functions in the order in which ingest, score and correlate call them. Storage is a
dictionary behind the real incident store, so that packing and unpacking rows is counted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from bench import report, workload
from bench.memory import MemoryDynamo
from bench.stack import url_event
from tests.support.keys import fixed_sealer

from tocsin.access.principals import Principal
from tocsin.aws import segments
from tocsin.aws.incident_store import DynamoIncidentStore
from tocsin.aws.ledger import MAX_FACETS, facets_of
from tocsin.aws.table import Table
from tocsin.entry import request_of
from tocsin.kernel import body, clock, envelope, ids, pseudonyms, strict_json
from tocsin.kernel.envelope import Envelope
from tocsin.kernel.redaction import Redactor
from tocsin.signals import correlation, correlator, events, scoring
from tocsin.signals.intake import DIGEST_BYTES, Intake
from tocsin.signals.ports import Cursor
from tocsin.signals.topology import Topology

PROJECT = "prj_bench"
TRACE = "0" * 32
KEY = bytes(range(32))
SEALER = fixed_sealer()

Event = dict[str, Any]


class Null:
    """A queue that takes everything."""

    def send(self, _: Any) -> None:
        return None


class Chain:
    """State of one run; each method is a stage of a batch and returns what the next one takes."""

    def __init__(self) -> None:
        self.topology = Topology.empty()
        self.redactor = Redactor()
        self.names = pseudonyms.Pseudonyms(pseudonyms.project_key(KEY, PROJECT))
        self.hot: dict[bytes, bytes] = {}
        self.full: dict[bytes, bytes] = {}
        self.table = MemoryDynamo()
        self.store = DynamoIncidentStore(Table(self.table, "bench"), SEALER, retention_days=90)
        self.policy = correlation.Policy()
        self.cursor = Cursor()
        self.opened = self.joined = 0

    def read(self, request: Any) -> list[Any]:
        value = strict_json.read(body.open_body(request).data)
        return value if isinstance(value, list) else [value]

    def validate(self, values: list[Any]) -> list[Event]:
        made = [events.validate(value) for value in values]
        for event in made:
            events.check_time(event, clock.now_ms())
        return made

    def name(self, batch: list[Event]) -> list[tuple[Event, str]]:
        named = []
        for event in batch:
            digest = hashlib.sha256(events.sent_bytes(event)).digest()[:DIGEST_BYTES].hex()
            event_id = ids.event_id(PROJECT, event["source"], event["id"])
            named.append(({**event, "event_id": event_id}, digest))
        return named

    def pseudonymise(self, named: list[tuple[Event, str]]) -> list[tuple[Event, str]]:
        return [(self.names.event(event), digest) for event, digest in named]

    def redact(self, named: list[tuple[Event, str]]) -> list[tuple[Event, str]]:
        return [(self.redactor.event(event, self.names.of), digest) for event, digest in named]

    def stamp(self, named: list[tuple[Event, str]]) -> dict[str, Any]:
        now = clock.now_ms()
        for event, _ in named:
            events.stamp(event, project=PROJECT, event_id=event["event_id"], trace_id=TRACE, received_at=now)
        return {"events": [event for event, _ in named], "digests": [digest for _, digest in named]}

    def seal(self, payload: dict[str, Any]) -> str:
        message = Envelope("events", ids.new_id("env", clock.now_ms()), PROJECT, TRACE, 0, payload)
        return envelope.seal(message, KEY, SEALER)

    def open(self, message: str) -> list[Event]:
        opened = envelope.open_sealed(message, KEY, SEALER).payload["events"]
        if not isinstance(opened, list):
            raise TypeError("a message holds a list of events")
        return opened

    def prepare(self, batch: list[Event]) -> list[scoring.Prepared]:
        return [scoring.prepare(event, self.topology) for event in batch]

    def score(self, prepared: list[scoring.Prepared]) -> scoring.Scored:
        hot_keys, _ = scoring.needs(prepared)
        hot = {key: self.hot[key] for key in hot_keys if key in self.hot}
        full = {key: self.full[key] for key in scoring.narrow(prepared, hot) if key in self.full}
        scored = scoring.score(prepared, hot, full)
        self.hot.update(scored.hot)
        self.full.update(scored.full)
        return scored

    def pack(self, scored: scoring.Scored) -> bytes:
        facets: set[bytes] = set()
        for event in scored.events:  # as the ledger sums up a log row
            facets |= facets_of(event)
            if len(facets) > MAX_FACETS:
                break
        return SEALER.seal(PROJECT, segments.encode(scored.hot, scored.full, scored.events)[0], "segment")

    def unpack(self, segment: bytes) -> list[Event]:
        return segments.decode_events(SEALER.open(PROJECT, segment, "segment"))

    def correlate(self, batch: list[Event]) -> None:
        n = self.cursor.n
        signals = [correlation.signal_of(event, n, i, self.topology) for i, event in enumerate(batch)]
        while signals:
            now = clock.now_ms()
            view = self.store.view(PROJECT, correlation.needed(signals, self.topology, self.policy))
            effects = correlation.correlate(
                signals,
                view,
                project=PROJECT,
                topology=self.topology,
                now=now,
                policy=self.policy,
                max_items=correlator.ITEMS_PER_ROUND,
            )
            after = Cursor(n + 1, 0, self.cursor.version + 1)
            self.store.save(PROJECT, self.cursor, after, effects, [], now)
            self.cursor = after
            self.opened += sum(one.kind == "opened" for one in effects.transitions)
            self.joined += len(effects.assignments)
            signals = signals[effects.consumed :]


def run(batch: int = 100, count: int = 20_000) -> dict[str, Any]:
    """Prints µs per event of each stage and events/s on one core; returns them."""
    report.title(f"In process: the whole chain at {batch} events per request")
    stages: list[tuple[str, str]] = [
        ("read", "parse strict JSON"),
        ("validate", "validate"),
        ("name", "digest and name"),
        ("pseudonymise", "pseudonymise"),
        ("redact", "redact"),
        ("stamp", "stamp"),
        ("seal", "seal (JSON, zlib, MAC)"),
        ("open", "open"),
        ("prepare", "fingerprint, severity, text cues"),
        ("score", "features, states, score"),
        ("pack", "pack the segment, facets"),
        ("unpack", "read the segment"),
        ("correlate", "correlate and save"),
    ]
    chain = Chain()
    spent = dict.fromkeys((name for name, _ in stages), 0.0)
    source = workload.events("chain")
    requests = [
        request_of(url_event(workload.body(list(islice(source, batch))), key="")) for _ in range(count // batch)
    ]
    wall = time.perf_counter()
    for request in requests:
        value: Any = request
        for name, _ in stages:
            stage: Callable[[Any], Any] = getattr(chain, name)
            began = time.process_time()
            value = stage(value)
            spent[name] += time.process_time() - began
    wall = time.perf_counter() - wall
    done = len(requests) * batch
    each = {name: seconds / done * 1e6 for name, seconds in spent.items()}
    total = sum(each.values())
    report.table(
        ("stage", "µs/event", "share"),
        [(text, f"{each[name]:.1f}", f"{each[name] / total:.0%}") for name, text in stages]
        + [("all", f"{total:.1f}", "100%")],
    )
    intake = Intake(Null(), marks=None, protect=lambda _, event: pseudonyms.protect(event, chain.redactor, chain.names))
    principal = Principal(PROJECT, "bench", frozenset({"ingest:write"}))
    began = time.process_time()
    for request in requests:
        intake.accept(request, principal)
    accept = (time.process_time() - began) / done * 1e6
    rate = 1e6 / total
    report.line(
        f"{rate:,.0f} events/s/core; {done:,} events, {wall:.1f} s wall, {total * done / 1e6 / wall:.0%} of it busy"
    )
    report.line(f"Intake.accept as a whole without sealing: {accept:.1f} µs/event")
    report.line(
        f"{chain.opened / done:.2%} of the events opened an incident, "
        f"{(chain.joined - chain.opened) / done:.2%} joined one"
    )
    return {"us_per_event": each, "total_us": total, "events_per_s_core": rate, "opened": chain.opened / done}


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
