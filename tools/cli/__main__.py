"""`./tocsin`: run the local cloud, send events, read what became of them.

What it prints comes from the HTTP API; only dead letters and the journal's files are reached through AWS (or the
emulator) directly.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tools.cli import decisions
from tools.cli.api import ROOT, Api, ApiError, contract

QUEUES = ("score", "correlate", "relay", "notify", "digest", "seal", "supervise", "privacy", "connect")
_STYLES = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "info": "dim"}
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
_Command = TypeVar("_Command", bound=Callable[..., None])


def _told(command: _Command) -> _Command:
    """Ends with one line and status 1 where the API refuses or there is no stack."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except (ApiError, FileNotFoundError, LookupError) as error:
            raise click.ClickException(str(error)) from error

    return run  # type: ignore[return-value]


def _api(admin: bool = False) -> Api:
    found = contract()
    return Api(found["api_url"], found["admin_key" if admin else "project_key"])


def _json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


#: Columns that are copied from, so they are never cut.
_WHOLE = frozenset(
    ("event", "incident", "key", "member", "message", "number", "prefix", "project", "resource", "trace")
)
#: Columns that give way first.
_LOOSE = frozenset({"title", "why", "why together", "timeline", "in words", "likely reason", "scopes"})


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()) -> None:
    """Rows as text, never as markup: what senders wrote stays what they wrote."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        widest = max([len(name), *(len(row[number]) for row in rows)])
        table.add_column(
            name,
            min_width=widest if name in _WHOLE else None,
            no_wrap=name not in _LOOSE,
            overflow="fold" if name in _LOOSE else "ellipsis",
        )
    for number, row in enumerate(rows):
        table.add_row(*map(Text, row), style=styles[number] if styles else "")
    console.print(table)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def tocsin() -> None:
    """Events in, explained incidents out. TOCSIN_HOME selects the stack (default: .local)."""


for one in (decisions.contracts, decisions.policies, decisions.route, decisions.certificate):
    tocsin.add_command(one)


# the local cloud
def _make(target: str) -> None:
    """Run a target of the Makefile, which makes sure of the environments first."""
    sys.exit(subprocess.run(["make", "--no-print-directory", target], cwd=ROOT, check=False).returncode)


@tocsin.command()
def up() -> None:
    """Start and deploy the embedded cloud."""
    _make("up")


@tocsin.command()
def down() -> None:
    """Stop it politely; its state is kept."""
    _make("down")


@tocsin.command()
def demo() -> None:
    """Start it, send sample events, show the incidents, break something and see it heal."""
    _make("demo")


# events
@tocsin.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), required=False)
@click.option("--source", default="cli", show_default=True, help="Who reports.")
@click.option("--type", "kind", default="manual", show_default=True, help="What kind of occurrence.")
@click.option("--title", help="One line for people; sends one event instead of a file.")
@click.option("--severity", default="info", show_default=True, help="In the source's own words.")
@click.option("--entity", metavar="TYPE:ID", help="What it is about.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE")
@_told
def send(
    file: Path | None,
    source: str,
    kind: str,
    title: str | None,
    severity: str,
    entity: str | None,
    tags: tuple[str, ...],
) -> None:
    """Send FILE (JSON; NDJSON as *.ndjson; - is standard input), or one event by --title."""
    if (file is None) == (title is None):
        raise click.UsageError("give a FILE or a --title")
    headers = {}
    body: Any
    if file is not None:
        body = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        if file.suffix in (".ndjson", ".jsonl"):
            headers["Content-Type"] = "application/x-ndjson"
    else:
        body = _event(source, kind, title or "", severity, entity, tags)
    answer = _api().call("POST", "/v1/events", body, headers=headers)["data"]
    rows = [[item["status"], str(item.get("event_id", "")), _problem(item.get("error"))] for item in answer["items"]]
    _table(["status", "event", "why"], rows)
    if any(row[0] == "refused" for row in rows):
        sys.exit(1)


def _problem(error: Any) -> str:
    return f"{error.get('code')}: {error.get('message')}" if isinstance(error, dict) else ""


def _event(
    source: str, kind: str, title: str, severity: str, entity: str | None, tags: Sequence[str]
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "id": f"cli-{secrets.token_hex(8)}",
        "source": source,
        "type": kind,
        "title": title,
        "severity_raw": severity,
    }
    if entity is not None:
        of, colon, name = entity.partition(":")
        if not colon:
            raise click.BadParameter("write it as type:id", param_hint="--entity")
        made["entity"] = {"type": of, "id": name}
    pairs = [tag.partition("=") for tag in tags]
    if any(not equals for _, equals, _ in pairs):
        raise click.BadParameter("write it as key=value", param_hint="--tag")
    if pairs:
        made["tags"] = {key: value for key, _, value in pairs}
    return made


@tocsin.command()
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--source")
@click.option("--entity", metavar="TYPE:ID")
@click.option("--tier", type=click.Choice(list(_STYLES)))
@click.option("--text", "words", help="Words that titles begin with.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's items.")
@_told
def events(
    limit: int, source: str | None, entity: str | None, tier: str | None, words: str | None, as_json: bool
) -> None:
    """Events, newest first."""
    found = list(_api().items("/v1/events", limit, source=source, entity=entity, tier=tier, q=words))
    if as_json:
        _json(found)
        return
    rows = [
        [_clock(one["occurred_at"]), f"{one['score']:.2f}", one["event_id"], one["source"], one["title"][:70]]
        for one in found
    ]
    _table(["time", "score", "event", "source", "title"], rows)


@tocsin.command()
@click.argument("event_id")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@_told
def explain(event_id: str, as_json: bool) -> None:
    """Why an event has its score. EVENT_ID is Tocsin's (evt_…) or the sender's."""
    told = _api().get(f"/v1/events/{event_id}/explain")
    if as_json:
        _json(told)
        return
    console.print(Text(f"{told['tier']} {told['score']:.6f}  {told['event_id']}", _STYLES[told["tier"]]))
    console.print(Text(told["text"]))
    rows = [[f"{one['micro_logits'] / 1e6:+.6f}", one["feature"], one["text"]] for one in told["contributions"]]
    rows += [[f"{told['bias'] / 1e6:+.6f}", "bias", "where every event begins"]]
    rows += [[f"{told['logit'] / 1e6:+.6f}", "sum", "the logit that the score is made from, exactly"]]
    _table(["logit", "feature", "in words"], rows)
    for name in ("to_next_tier", "to_lower_tier"):
        if told.get(name):
            console.print(Text(f"{name.replace('_', ' ')}: {told[name].get('text', told[name])}"))


# incidents
@tocsin.command()
@click.argument("incident_id", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--status", type=click.Choice(["open", "acknowledged", "resolved", "merged"]))
@click.option("--tier", type=click.Choice(list(_STYLES)))
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@_told
def incidents(incident_id: str | None, limit: int, status: str | None, tier: str | None, as_json: bool) -> None:
    """Incidents, newest first; with INCIDENT_ID that one with its reasons, timeline and members."""
    api = _api()
    if incident_id:
        one = api.get(f"/v1/incidents/{incident_id}")
        _json(one) if as_json else _incident(one)
        return
    found = list(api.items("/v1/incidents", limit, status=status, tier=tier))
    if as_json:
        _json(found)
        return
    rows = [
        [
            _clock(one["opened_at"]),
            one["status"],
            f"{one['tier']} {one['score']:.2f}",
            str(one["event_count"]),
            one["id"],
            one["title"][:60],
        ]
        for one in found
    ]
    columns = ["opened", "status", "tier", "events", "incident", "title"]
    _table(columns, rows, [_STYLES[one["tier"]] for one in found])


def _incident(one: dict[str, Any]) -> None:
    console.print(Text(f"{one['tier']} {one['score']:.2f}  {one['title']}", _STYLES[one["tier"]]))
    console.print(Text(f"{one['id']} · {one['status']} · {one['event_count']} events, {one['entity_count']} entities"))
    if one.get("root"):
        console.print(Text(f"likely origin: {one['root']['service']}: {', '.join(one['root']['why'])}"))
    _table(
        ["weight", "count", "why together"],
        [[f"{r['weight']:.2f}", str(r["count"]), r["text"]] for r in one["reasons"]],
    )
    console.print()
    _table(["time", "by", "timeline"], [[_clock(e["at"]), e["by"], e["text"]] for e in one["timeline"]])
    console.print()
    members = [[_clock(e["occurred_at"]), f"{e['score']:.2f}", e["event_id"], e["title"][:70]] for e in one["members"]]
    _table(["time", "score", "member", "title"], members)


def _clock(text: str) -> str:
    return text[5:19].replace("T", " ")


@tocsin.command()
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--json", "as_json", is_flag=True, help="Print the API's items.")
@_told
def healings(limit: int, as_json: bool) -> None:
    """What the supervisor found and repaired, newest first."""
    found = list(_api(admin=True).items("/v1/healings", limit))
    if as_json:
        _json(found)
        return
    rows = [
        [
            _clock(one["at"]),
            one["target"],
            one["finding"],
            one["action"],
            one["outcome"],
            str(one["attempts"]),
            f"{one['healed_after_ms'] / 1000:.1f} s" if "healed_after_ms" in one else "",
        ]
        for one in found
    ]
    _table(["time", "target", "finding", "action", "outcome", "tries", "well after"], rows)


# judgement again
@tocsin.command("replay")
@click.option("--since", default="7d", show_default=True, help="A span such as 90min, 24h or 7d, or an RFC 3339 time.")
@click.option(
    "--against",
    default="recorded",
    show_default=True,
    help="Calibrators: recorded (those of each commit), identity, or a kept version such as calibration-2.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the whole account.")
@_told
def replay_log(since: str, against: str, as_json: bool) -> None:
    """Score and correlate the recorded log again with this checkout's code, and say what would be different.

    With the code and versions that recorded it, nothing is. Nothing is written and nobody is told.
    """
    from tools.cli import replay

    from tocsin.kernel import clock

    found = contract()
    chosen = None if against == "recorded" else against
    start = replay.since_ms(since, clock.now_ms())
    account = replay.run(found["resources"], _client, found["project"], start, chosen).as_json()
    if as_json:
        _json(account)
        return
    click.echo(
        f"{account['events']} events in {account['commits']} commits: {account['identical']} scored the same, "
        f"{account['events'] - account['identical']} differently"
    )
    if account["versions_not_kept"]:
        click.echo(f"not kept any more, so taken as empty: {', '.join(account['versions_not_kept'])}")
    incidents = account["incidents"]
    click.echo(
        f"{incidents['before']} incidents before, {incidents['after']} after; "
        f"{incidents['same_members']} with the same members"
    )
    if account["tier_moves"]:
        _table(
            ["from", "to", "events"], [[one["from"], one["to"], str(one["events"])] for one in account["tier_moves"]]
        )
    rows = [
        [f"{one['before']['score']:.2f}", f"{one['after']['score']:.2f}", one["event_id"], one["title"]]
        for one in account["most_changed"]
    ]
    if rows:
        _table(["before", "after", "event", "title"], rows)


# access
@tocsin.group("keys")
def keys_() -> None:
    """API keys of the contract's project, with its admin key."""


def _keys(items: Sequence[dict[str, Any]]) -> None:
    rows = [
        [
            one["id"],
            f"{one['prefix']}…{one['last_four'] or ''}",
            one["status"],
            one["name"],
            " ".join(one["scopes"]),
            *(_clock(one[name] or "") for name in ("created_at", "last_used_at", "expires_at")),
        ]
        for one in items
    ]
    _table(["key", "prefix", "status", "name", "scopes", "created", "last used", "ends"], rows)


def _secrets(made: dict[str, Any]) -> None:
    """What is shown this once, each on a line of its own."""
    click.echo(f"{made['id']} {' '.join(made['scopes'])}")
    for name in ("key", "signing_secret"):
        if made.get(name):
            click.echo(made[name])


@keys_.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the API's items.")
@_told
def list_keys(as_json: bool) -> None:
    """Every key: prefix and last four characters, never the text."""
    found = _api(admin=True).get("/v1/keys")["items"]
    _json(found) if as_json else _keys(found)


@keys_.command("create")
@click.option("--name", required=True)
@click.option("--scope", "scopes", multiple=True, help="family:verb; ingest:write alone when left out.")
@click.option("--expires", "expires_at", metavar="RFC3339")
@click.option("--owner", metavar="PERSON_ID", help="Whose key it is.")
@click.option("--signing", is_flag=True, help="With a secret for signing requests.")
@_told
def create_key(name: str, scopes: tuple[str, ...], expires_at: str | None, owner: str | None, signing: bool) -> None:
    """Make a key and print its text, which is shown this once."""
    body = {"name": name, "scopes": list(scopes) or None, "expires_at": expires_at, "owner": owner, "signing": signing}
    given = {field: value for field, value in body.items() if value}
    _secrets(_api(admin=True).call("POST", "/v1/keys", given)["data"])


@keys_.command("rotate")
@click.argument("key_id")
@click.option("--overlap", default=86_400, show_default=True, type=click.IntRange(0, 604_800), help="Seconds.")
@_told
def rotate_key(key_id: str, overlap: int) -> None:
    """Make a successor of KEY_ID and print its text; the old key ends after the overlap."""
    _secrets(_api(admin=True).call("POST", f"/v1/keys/{key_id}/rotate", {"overlap_s": overlap})["data"])


@keys_.command("revoke")
@click.argument("key_id")
@click.option("--descendants", is_flag=True, help="Also every key that was made by way of it.")
@_told
def revoke_key(key_id: str, descendants: bool) -> None:
    """End KEY_ID: within 30 seconds everywhere."""
    query = {"descendants": "true"} if descendants else {}
    ended = _api(admin=True).call("DELETE", f"/v1/keys/{key_id}", query=query)["data"]["revoked"]
    click.echo("\n".join(ended) or "it had ended before")


@tocsin.group("projects")
def projects_() -> None:
    """Projects, with the contract's admin key."""


@projects_.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the API's items.")
@_told
def list_projects(as_json: bool) -> None:
    """Projects that the key may see; every one for the operator's."""
    found = _api(admin=True).get("/v1/projects")["items"]
    if as_json:
        _json(found)
        return
    rows = [
        [one["id"], one["status"], str(one["quota"]["events_per_second"]), _clock(one["created_at"]), one["name"]]
        for one in found
    ]
    _table(["project", "status", "events/s", "created", "name"], rows)


@projects_.command("create")
@click.argument("name")
@_told
def create_project(name: str) -> None:
    """Make a project and print its first key, which is shown this once."""
    made = _api(admin=True).call("POST", "/v1/projects", {"name": name})["data"]
    click.echo(made["id"])
    _secrets(made["first_key"])


@tocsin.command()
@click.option("--from", "since", metavar="RFC3339")
@click.option("--to", "until", metavar="RFC3339")
@click.option("--json", "as_json", is_flag=True, help="Print the API's answer.")
@_told
def usage(since: str | None, until: str | None, as_json: bool) -> None:
    """What the project used, by UTC day."""
    told = _api(admin=True).get("/v1/usage", **{"from": since, "to": until})
    if as_json:
        _json(told)
        return
    rows = [[one["day"], *(str(one[name]) for name in told["totals"])] for one in told["items"]]
    _table(["day", *told["totals"]], [*rows, ["all", *map(str, told["totals"].values())]])


@tocsin.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--stripe-url", default="https://api.stripe.com", show_default=True)
@_told
def bill(file: Path, stripe_url: str) -> None:
    """Hand closed days of usage to Stripe, once each. FILE maps projects to customers and meters; without
    STRIPE_SECRET_KEY in the environment this does nothing but say so.
    """
    import os

    from tools.cli.billing import StripeSender, accounts

    from tocsin.access.usage import StripeExporter
    from tocsin.aws.access_store import DynamoUsage
    from tocsin.aws.table import Table as Rows
    from tocsin.kernel import clock
    from tocsin.kernel.errors import TocsinError

    secret = os.environ.get("STRIPE_SECRET_KEY", "")
    if not secret:
        raise LookupError("STRIPE_SECRET_KEY is not set: nothing is exported")
    store = DynamoUsage(Rows(_client("dynamodb"), contract()["resources"]["TableName"]))
    exporter = StripeExporter(store, StripeSender(stripe_url), secret)
    sent = []
    try:
        for project, account in accounts(file).items():
            sent += [[project, *map(str, one)] for one in exporter.export(project, account, clock.now_ms())]
    except TocsinError as error:
        raise LookupError(f"{error}; run it again, nothing is counted twice") from error
    _table(["project", "day", "meter", "value"], sent)


# dead letters
@tocsin.group("dead-letters")
def dead_letters() -> None:
    """Messages that were given up after five tries."""


@dead_letters.command("list")
@click.argument("queue", type=click.Choice(QUEUES), required=False)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
@_told
def list_(queue: str | None, limit: int) -> None:
    """How many there are per queue, or those of one QUEUE with the likeliest reason."""
    if queue is None:
        _table(["queue", "dead letters"], [[name, str(_letters(name).depth())] for name in QUEUES])
        return
    now = time.time()
    rows = [
        [f"{now - one.sent_at / 1000:.0f} s", one.message_id, one.kind, one.project, one.trace_id, one.reason]
        for one in _letters(queue).peek(limit)
    ]
    _table(["age", "message", "kind", "project", "trace", "likely reason"], rows)


@dead_letters.command()
@click.argument("queue", type=click.Choice(QUEUES))
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--rate", default=50.0, show_default=True, type=click.FloatRange(0.1, 1000), help="Per second.")
@_told
def replay(queue: str, limit: int, rate: float) -> None:
    """Send the dead letters of QUEUE back to it. Repeats do no harm; the healing records tell who did it."""
    import getpass

    from tocsin.aws.dead_letters import replay_record
    from tocsin.aws.table import Table as Rows
    from tocsin.aws.watch import Healings
    from tocsin.kernel import clock
    from tocsin.kernel.cause import acting

    letters = _letters(queue)
    sent = 0
    try:
        sent = letters.replay(limit, rate)
    finally:
        left = letters.depth()
        rows = Rows(_client("dynamodb"), contract()["resources"]["TableName"])
        record = replay_record(queue, getpass.getuser(), sent, left, clock.now_ms())
        with acting("admin:cli"):  # the record, which evidence names by digest, says who it was
            Healings(rows).record(record)
    click.echo(f"{record['text']} ({record['id']})")


# the journal
@tocsin.group()
def journal() -> None:
    """The signed record of what was done; see docs/journal.md."""


@journal.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@click.option("--kind", help="Exact kind, such as incident.acknowledged.")
@click.option("--actor", help="Exact actor, such as system:correlate.")
@click.option("--deployment", is_flag=True, help="What belongs to no project: healings, replays, keys.")
@click.option("--json", "as_json", is_flag=True, help="Print the API's items.")
@_told
def journal_list(limit: int, kind: str | None, actor: str | None, deployment: bool, as_json: bool) -> None:
    """Sealed entries, newest first."""
    of = "deployment" if deployment else None
    found = list(_api(admin=deployment).items("/v1/journal", limit, kind=kind, actor=actor, of=of))
    if as_json:
        _json(found)
        return
    rows = []
    for one in found:
        entry = one["entry"]
        at = time.strftime("%m-%d %H:%M:%S", time.gmtime(entry["at"] / 1000))
        rows.append([str(one["index"]), at, entry["kind"], entry["outcome"], entry["actor"], entry["resource"]])
    _table(["number", "time", "kind", "outcome", "actor", "resource"], rows)


@journal.command("keys")
@_told
def journal_keys() -> None:
    """The pinned public keys: the log's, then the cosigner's. Keep a copy somewhere else."""
    click.echo("\n".join(_pinned(())))


@journal.command("fetch")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_told
def journal_fetch(folder: Path) -> None:
    """Copy the journal's files from its bucket to FOLDER."""
    click.echo(f"{_fetch(folder)} files in {folder}")


@journal.command("verify")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True), required=False)
@click.option("--key", "keys", multiple=True, help="Verifier key, the log's first; pinned ones when left out.")
@click.option("--earlier", multiple=True, type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="A checkpoint kept from before; the log must extend it.")  # fmt: skip
@_told
def journal_verify(folder: Path | None, keys: tuple[str, ...], earlier: tuple[Path, ...]) -> None:
    """Check signatures, every entry and every tile: of the copy in FOLDER, or of the bucket. Names the place of damage
    and ends with status 1 when there is any.
    """
    from tocsin.journal.notes import VerifierKey
    from tocsin.journal.tree import Damaged
    from tocsin.journal.verify import Directory, verify

    try:
        pinned = [VerifierKey.parse(text) for text in _pinned(keys)]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--key") from error
    kept = [one.read_bytes() for one in earlier]
    with tempfile.TemporaryDirectory() as copy:
        if folder is None:
            folder = Path(copy)
            _fetch(folder)
        try:
            found = verify(Directory(folder), pinned, kept)
        except Damaged as damage:
            click.echo(f"NOT VERIFIED: {damage}", err=True)
            sys.exit(1)
    signed = " and ".join(key.name for key in pinned)
    click.echo(f"VERIFIED: {found.checkpoint.size} entries in {found.files} files, signed by {signed}")


def _pinned(given: Sequence[str]) -> list[str]:
    """Verifier keys as given, or as they were pinned when the stack was made."""
    pinned = list(given) or contract().get("journal_keys")
    if not pinned:
        raise LookupError("no verifier keys are pinned: run make up, or give --key")
    return list(pinned)


def _fetch(folder: Path) -> int:
    """Copy all files of the log; how many. The checkpoint comes first, so that the others hold all that it covers."""
    from tocsin.aws.journal_store import JournalFiles
    from tocsin.journal.tree import parse_path

    files = JournalFiles(_client("s3"), contract()["resources"]["JournalBucketName"])

    def copy(path: str) -> None:
        data = files.read(path)
        if data is not None:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    copy("checkpoint")
    tiles = [path for path in files.paths() if parse_path(path)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(copy, tiles))
    return len(tiles) + 1


def _client(service: str) -> Any:
    """A client of the stack's own endpoint, or of AWS where the contract names none."""
    import boto3

    found = contract()
    if not found.get("endpoint_url"):
        return boto3.client(service)  # type: ignore[call-overload]
    return boto3.client(  # type: ignore[call-overload]
        service,
        endpoint_url=found["endpoint_url"],
        region_name=found.get("region", "us-east-1"),
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - what emulators expect
    )


def _letters(queue: str) -> Any:
    from tocsin.aws.dead_letters import DeadLetters

    sqs = _client("sqs")
    url = sqs.get_queue_url(QueueName=f"{contract()['stack']}-{queue}")["QueueUrl"]
    return DeadLetters(sqs, url)


if __name__ == "__main__":
    tocsin(prog_name="tocsin")
