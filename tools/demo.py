"""`make demo`: a checkout outage told by four monitoring systems, what Tocsin makes of it, and a fault that
heals.

Everything is done through the HTTP API of the deployed stack, except for the sabotage: the score function's
event source mapping is disabled behind Tocsin's back, and its own supervisor has to notice. Ends with exit
status 1 and what was seen when anything does not happen within its limit.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import textwrap
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tools.cli.api import ROOT, Api, ApiError, contract, home
from tools.receiver import Receiver

STORY = ROOT / "events" / "demo"
SOURCES = ("prometheus", "cloudwatch", "sentry", "kubernetes")
MAIL_TO = "oncall@example.com"
#: The service that every shop of the story has.
HEART = "orders-db"
WIDTH = 118
#: Seconds each thing may take. Healing should take less than HEAL_AIM.
INCIDENT_LIMIT, DELIVERY_LIMIT, HEAL_LIMIT, HEAL_AIM = 60.0, 60.0, 30.0, 10.0
_LOUD = {"medium", "high", "critical"}
_Found = TypeVar("_Found")
Json = dict[str, Any]


class DemoFailedError(Exception):
    """Something did not happen; the message says what was awaited and what was seen."""


def until(what: str, seconds: float, look: Callable[[], _Found | None], seen: Callable[[], object] = str) -> _Found:
    """What `look` finds, as soon as it finds something true. Raises DemoFailedError naming what was `seen`
    instead.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            said = textwrap.shorten(str(seen()), 1500)
            raise DemoFailedError(f"{what}: not within {seconds:.0f} s" + (f"; seen: {said}" if said else ""))
        time.sleep(0.25)


def say(text: str, began: float | None = None) -> None:
    """One line, with the time since `began` in front when given; cut to the width of a screen."""
    lead = f"  {time.monotonic() - began:6.1f} s  " if began is not None else "            "
    line = lead + text
    print(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…", flush=True)


def listed(name: str, text: str) -> None:
    """A named line of an incident, on at most two lines."""
    for n, part in enumerate(textwrap.wrap(text, WIDTH - 30, max_lines=2, placeholder=" …")):
        say(f"  {'' if n else name:<15} {part}")


def rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time in UTC."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return (
        time.mktime(time.strptime(whole + " UTC", "%Y-%m-%dT%H:%M:%S %Z")) - time.timezone + float(f"0.{fraction or 0}")
    )


def read_story(shop: str) -> tuple[dict[str, list[Json]], Json]:
    """The sample events by monitoring system, and the topology, with every service of the shop renamed."""
    topology = json.loads((STORY / "topology.json").read_text())
    names = re.compile(r"\b(" + "|".join([*topology["services"], "reports-1", "batch-7"]) + r")\b")

    def told(name: str) -> Any:
        return json.loads(names.sub(rf"{shop}\1", (STORY / f"{name}.json").read_text()))

    return {source: told(source) for source in SOURCES}, told("topology")


def happen_now(events: Iterable[Json], run: str, now: float) -> None:
    """Move events in time so that the last one happens now, and give them ids of this run."""
    moved = list(events)
    last = max(parse_time(event["occurred_at"]) for event in moved)
    for event in moved:
        event["occurred_at"] = rfc3339(parse_time(event["occurred_at"]) + now - last - 1)
        event["id"] = f"{event['id']}-{run}"


class Demo:
    """One run against the stack of a contract file."""

    def __init__(self, found: Json) -> None:
        self.contract = found
        self.api = Api(found["api_url"], found["project_key"])
        self.admin = Api(found["api_url"], found["admin_key"])
        self.run_id = secrets.token_hex(3)
        self.receiver: Receiver | None = None

    def run(self) -> None:
        """The whole demo; raises DemoFailedError or ApiError."""
        try:
            print(f"\n  a checkout outage, told by {len(SOURCES)} monitoring systems")
            self.prepare()
            self.tell()
            self.show()
            self.deliveries()
            self.heal()
            self.outlook()
        finally:
            if self.receiver:
                self.receiver.close()

    # before
    def prepare(self) -> None:
        """Channels, the receiver behind one of them, and the topology."""
        began = time.monotonic()
        self.shop = self._shop()
        self.story, topology = read_story(self.shop)
        channels = {channel["name"]: channel for channel in self.api.get("/v1/channels")["items"]}
        hook = channels.get("demo receiver")
        if hook is None:
            url = f"{self.contract['receiver']}/hook"
            body: Json = {"kind": "webhook", "name": "demo receiver", "url": url}
            made = self.api.call("POST", "/v1/channels", body)["data"]
        else:
            made = self.api.call("POST", f"/v1/channels/{hook['id']}/rotate")["data"]
        self.receiver = self._receiver(made["secret"])
        if "demo mail" not in channels:
            self.api.call("POST", "/v1/channels", {"kind": "email", "name": "demo mail", "to": [MAIL_TO]})
        known = self.api.get("/v1/topology")["services"]
        self.api.call("PUT", "/v1/topology", {"services": {**known, **topology["services"]}})
        declared = f"topology of {len(topology['services'])} services declared"
        say(f"{'made' if hook is None else 'found'} a webhook and an e-mail channel; {declared}", began)

    def _shop(self) -> str:
        """A prefix for this run's services. An outage that comes back within minutes joins the incident it
        belongs to; a second demo shall tell a new one, so it happens to another shop.
        """
        services = {one["service"] for it in self.api.items("/v1/incidents", 100) for one in it["services"]}
        taken = [name.removesuffix(HEART) for name in services if name.endswith(HEART)]
        numbers = [int(prefix[4:-1]) if prefix else 1 for prefix in taken]
        return f"shop{max(numbers) + 1}-" if numbers else ""

    def _receiver(self, secret: str) -> Receiver:
        """Listens only when the secret is known, so that whatever is still under way to it verifies."""
        port = urllib.parse.urlsplit(self.contract["receiver"]).port or 0
        try:
            return Receiver(port, [secret], home() / "receiver.jsonl")
        except OSError as error:
            place = self.contract["receiver"]
            raise DemoFailedError(f"the webhook receiver cannot listen on {place}: {error}") from error

    # events in
    def tell(self) -> None:
        """Send the story, one request per system, and wait until every event is stored and placed."""
        began = time.monotonic()
        self.sent: dict[str, Json] = {}
        self.since = time.time()
        happen_now([event for events in self.story.values() for event in events], self.run_id, self.since)
        for events in self.story.values():
            answer = self.api.call("POST", "/v1/events", events)
            for event, item in zip(events, answer["data"]["items"], strict=True):
                if item["status"] != "accepted":
                    raise DemoFailedError(f"event {event['id']} was {item['status']}: {item}")
                self.sent[event["id"]] = event
        say(f"{len(self.sent)} events accepted in {len(SOURCES)} requests", began)
        began = time.monotonic()
        self.stored = until("all events are scored", INCIDENT_LIMIT, self._scored, self._progress)
        self.incidents = until("incidents have settled", INCIDENT_LIMIT, self._settled, self._progress)
        placed = {one for incident in self.incidents for one in incident["event_ids"]}
        alone = len(self.stored) - len(placed)
        say(
            f"scored and correlated: {len(self.incidents)} incident{'s' * (len(self.incidents) != 1)} "
            f"of {len(placed)} events; {alone} more are noise and wake nobody",
            began,
        )

    def _mine(self) -> list[Json]:
        listed = self.api.items("/v1/events", 100)
        return [event for event in listed if event["id"] in self.sent]

    def _scored(self) -> list[Json] | None:
        mine = self._mine()
        return mine if len(mine) == len(self.sent) else None

    def _settled(self) -> list[Json] | None:
        """The incidents of this run's events, once two looks in a row agree and a loud one is among them."""
        looks = []
        for _ in range(2):
            placed: dict[str, list[Json]] = {}
            for event in self._mine():
                if event.get("incident_id"):
                    placed.setdefault(event["incident_id"], []).append(event)
            looks.append({name: sorted(event["id"] for event in events) for name, events in placed.items()})
            time.sleep(0.5)
        if looks[0] != looks[1] or not placed:
            return None
        found = [self.api.get(f"/v1/incidents/{name}") for name in placed]
        for incident in found:
            incident["event_ids"] = looks[0][incident["id"]]
            incident["loudest"] = max(placed[incident["id"]], key=lambda event: event["score"])
        if not any(incident["tier"] in _LOUD for incident in found):
            return None
        return sorted(found, key=lambda incident: -incident["score"])

    def _progress(self) -> object:
        mine = self._mine()
        placed = sum(bool(event.get("incident_id")) for event in mine)
        return f"{len(mine)} of {len(self.sent)} events stored, {placed} of them in incidents"

    # incidents out
    def show(self) -> None:
        """Each incident with the reasons that scored it and tied it together."""
        for incident in self.incidents[:3]:
            print()
            say(f"{incident['tier'].upper()} {incident['score']:.2f}  {incident['title']}")
            minutes = (time.time() - parse_time(incident["first_event_at"])) / 60
            say(
                f"  {incident['id']} · {incident['status']} · {incident['event_count']} events · "
                f"began {minutes:.0f} min ago · {', '.join(incident['sources'])}"
            )
            several = len(incident["services"]) > 1
            if several:
                root = incident["root"]
                say("  fired in order  " + " → ".join(one["service"] for one in incident["services"]))
                say(f"  likely origin   {root['service']}: {', '.join(root['why'])}")
            told = self.api.get(f"/v1/events/{incident['loudest']['event_id']}/explain")
            listed(f"why {told['score']:.2f}", " · ".join(one["text"] for one in told["contributions"][:5]))
            if several:
                reasons = sorted(incident["reasons"], key=lambda one: " depends on " not in one["text"])
                for n, reason in enumerate(reasons[:3]):
                    listed("" if n else "why together", reason["text"])

    # people told
    def deliveries(self) -> None:
        """Wait for both channels, check the signatures, and show what came."""
        print()
        began = time.monotonic()
        receiver = self.receiver
        assert receiver is not None
        loud = {incident["id"] for incident in self.incidents if incident["tier"] in _LOUD}
        due = until("everything due is delivered", DELIVERY_LIMIT, lambda: self._delivered(loud), self._account)
        forged = [one for one in receiver.receipts if not one.verified]
        if forged:
            one = forged[0]
            raise DemoFailedError(f"{len(forged)} webhooks did not verify: {one.problem} ({one.webhook_id})")
        got = {one.webhook_id: one for one in receiver.receipts if one.subject in loud}
        missing = {record["webhook_id"] for record in due} - got.keys()
        if missing:
            raise DemoFailedError(f"delivered by the account, but not received: {sorted(missing)}")
        kinds = ", ".join(sorted(one.type.rpartition(".")[2] for one in got.values()))
        say(f"webhooks   {len(got)} received ({kinds}), every signature verified", began)
        mails = until("a mail about an incident", DELIVERY_LIMIT, self._mails)
        say(f"e-mail     {len(mails)} to {MAIL_TO}: {mails[0]['Subject']}", began)

    def _delivered(self, loud: set[str]) -> list[Json]:
        """Webhook notifications of the loud incidents, once every transition is there and none is under way."""
        hook = next(c["id"] for c in self.api.get("/v1/channels")["items"] if c["name"] == "demo receiver")
        records = [
            record
            for incident_id in loud
            for record in self.api.items("/v1/notifications", 50, incident=incident_id)
            if record["channel_id"] == hook
        ]
        waiting = any(record["decision"] in ("pending", "retrying") for record in records)
        told = [record for record in records if record["decision"] == "delivered"]
        due = {(one["id"], "opened") for one in self.incidents if one["id"] in loud}
        due |= {(one["id"], "resolved") for one in self.incidents if one["id"] in loud and one["status"] == "resolved"}
        return [] if waiting or due - {(record["incident_id"], record["kind"]) for record in told} else told

    def _account(self) -> object:
        return [
            {name: record[name] for name in ("incident_id", "kind", "decision", "reason")}
            for record in self.api.items("/v1/notifications", 20)
        ]

    def _mails(self) -> list[Json]:
        """Mails of this run that the embedded cloud took."""
        address = f"{self.contract['endpoint_url']}/_ministack/ses/messages"
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - the contract's own address
            boxes = json.load(answer)["messages"]
        return [
            mail
            for box in boxes.values()
            for mail in box
            if MAIL_TO in str(mail["To"]) and float(mail["Timestamp"]) >= self.since - 1
        ]

    # something breaks
    def heal(self) -> None:
        """Disable the mapping that feeds scoring, and watch the deployed supervisor put it right."""
        import boto3  # only here is anything of AWS called directly

        print()
        client = boto3.client(
            "lambda",
            endpoint_url=self.contract["endpoint_url"],
            region_name=self.contract.get("region", "us-east-1"),
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - what emulators expect
        )
        function = f"{self.contract['stack']}-score"
        (mapping,) = client.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        known = {one["id"] for one in self.admin.items("/v1/healings", 100)}
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        began = time.monotonic()
        say("broken on purpose: the event source mapping of score is disabled, and one more event is sent")
        event = {
            "id": f"while-broken-{self.run_id}",
            "source": "demo",
            "type": "synthetic.check",
            "title": "Sent while scoring was cut off",
            "severity_raw": "info",
        }
        accepted = self.api.call("POST", "/v1/events", event)["data"]["items"][0]

        def fresh() -> Json | None:
            for one in self.admin.items("/v1/healings", 20):
                if one["id"] not in known and one["target"] == "mapping score":
                    return one if one["outcome"] in ("repaired", "healed") else None
            return None

        record = until(
            "the supervisor repairs it", HEAL_LIMIT, fresh, lambda: list(self.admin.items("/v1/healings", 5))
        )
        took = time.monotonic() - began
        state = client.get_event_source_mapping(UUID=mapping["UUID"])["State"]
        if state not in ("Enabled", "Enabling"):
            raise DemoFailedError(f"the record {record['id']} says {record['outcome']}, but the mapping is {state}")
        late = "" if took < HEAL_AIM else f"  (slower than the {HEAL_AIM:.0f} s it should take)"
        say(
            f"healed by the deployed supervisor: {record['action']} {record['target']}, {record['id']}{late}",
            began,
        )
        until("the event sent meanwhile is scored", INCIDENT_LIMIT, lambda: self._found(accepted["event_id"]))
        say("and the event sent meanwhile is scored: nothing was lost", began)

    def _found(self, event_id: str) -> bool:
        try:
            return bool(self.api.get(f"/v1/events/{event_id}"))
        except ApiError as error:
            if error.status == 404:
                return False
            raise

    def outlook(self) -> None:
        """Where everything is and what to try next."""
        cli = "./tocsin"
        first = self.incidents[0]
        print(f"\n  API       {self.contract['api_url']}   (docs at /docs)")
        print(f"  try next  {cli} incidents {first['id']}")
        print(f"            {cli} explain {first['loudest']['event_id']}")
        print(f"            {cli} healings      make test      make down")


def main() -> int:
    """Run the demo; 0 when everything happened."""
    began = time.monotonic()
    try:
        Demo(contract()).run()
    except (DemoFailedError, ApiError, OSError) as error:
        print(f"\n  demo FAILED after {time.monotonic() - began:.0f} s: {error}", file=sys.stderr)
        return 1
    print(f"  demo done in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
