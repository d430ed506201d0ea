"""Measures redaction: recall and precision on a labelled generated corpus, false hits on real log lines, and
speed.

    PYTHONPATH=shared:. python -m bench.redaction_bench [--loghub FOLDER] [--seed 7] [--lines 4000]

Personal data here is made up: numbers in reserved or test ranges with valid check digits, addresses in
example domains.
"""

from __future__ import annotations

import argparse
import base64
import csv
import random
import string
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from bench import report, workload

from tocsin.access import keys
from tocsin.kernel import redaction
from tocsin.kernel.redaction import Redactor

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
FIRST = (
    "alice",
    "bruno",
    "chloé",
    "dmitri",
    "emeka",
    "farah",
    "günther",
    "hana",
    "ivan",
    "maría",
    "noor",
    "priya",
)
LAST = ("smith", "okafor", "müller", "rossi", "tanaka", "silva", "novak", "dubois", "hansen", "kim", "garcia")
ISSUERS = (
    ("4", 16),
    ("51", 16),
    ("2221", 16),
    ("34", 15),
    ("37", 15),
    ("6011", 16),
    ("36", 14),
    ("3528", 16),
)


def pick(rng: random.Random, alphabet: str, count: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


def email(rng: random.Random) -> str:
    name = (
        rng.choice(FIRST)
        + rng.choice([".", "_", "", "+"])
        + rng.choice([rng.choice(LAST), pick(rng, string.digits, 3)])
    )
    return f"{name}@{rng.choice(['example.com', 'mail.example.org', 'example.co.uk', 'bücher.example'])}"


def phone(rng: random.Random) -> str:
    area, last = rng.choice(["415", "212", "650", "303"]), f"{rng.randrange(10000):04d}"
    return rng.choice(
        [
            f"+1 {area} 555 {last}",
            f"+1-{area}-555-{last}",
            f"({area}) 555-{last}",
            f"{area}-555-{last}",
            f"+1{area}555{last}",
            f"{area}.555.{last}",
            f"+44 20 7946 {last}",
            f"+49 30 901820 {last}",
            f"+33 6 12 34 {last[:2]} {last[2:]}",
        ]
    )


def ssn(rng: random.Random) -> str:
    return f"{rng.randrange(1, 666):03d}-{rng.randrange(1, 100):02d}-{rng.randrange(1, 10000):04d}"


def card(rng: random.Random) -> str:
    head, length = rng.choice(ISSUERS)
    body = head + pick(rng, string.digits, length - len(head) - 1)
    digits = next(body + check for check in string.digits if redaction.luhn(body + check))
    if length == 16 and rng.random() < 0.6:
        return rng.choice(" -").join(digits[i : i + 4] for i in range(0, 16, 4))
    return digits


def iban(rng: random.Random) -> str:
    country, bank, count = rng.choice(
        [("DE", "", 18), ("GB", "WEST", 14), ("FR", "", 23), ("NL", "ABNA", 10), ("CH", "", 17)]
    )
    body = bank + pick(rng, string.digits, count)
    check = 98 - int("".join(str(int(char, 36)) for char in body + country + "00")) % 97
    text = f"{country}{check:02d}{body}"
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4)) if rng.random() < 0.5 else text


def jwt(rng: random.Random) -> str:
    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    return ".".join(
        [
            part('{"alg":"HS256","typ":"JWT"}'),
            part(f'{{"sub":"{rng.randrange(9**9)}"}}'),
            pick(rng, ALNUM + "-_", 43),
        ]
    )


def secret_value(rng: random.Random) -> str:
    return pick(rng, ALNUM + "!#$%*+-_.", rng.randrange(8, 24)) + "7"


def tocsin_key(rng: random.Random) -> str:
    body = f"tcn_{rng.choice(keys.ENVIRONMENTS)}_" + pick(rng, keys.ALPHABET, 44)
    return body + keys._check(body)


#: kind -> (maker of a value, maker of the text around it); the text holds {} once.
MAKERS: dict[str, tuple[Callable[[random.Random], str], tuple[str, ...]]] = {
    "email": (
        email,
        ("{}", "reset link for {} was sent", "login user={} ok", '{{"to": "{}"}}', "From: <{}>"),
    ),
    "phone": (
        phone,
        (
            "call {} now",
            "phone: {}",
            '{{"phone": "{}"}}',
            "the customer left {} as number",
            "msisdn={} state=up",
        ),
    ),
    "ssn": (ssn, ("ssn {}", "applicant {} was rejected", '{{"ssn":"{}"}}', "taxpayer={} year=2025")),
    "card": (card, ("card {} declined", "payment with {}", '{{"n": "{}"}}', "auth pan={} amount=12.50")),
    "iban": (iban, ("transfer to {}", "account {} is closed", '{{"iban": "{}"}}', "debit iban={};amount=3")),
    "aws_key": (
        lambda rng: "AKIA" + pick(rng, string.ascii_uppercase + "234567", 16),
        ("key {} used", "id={}", '{{"k":"{}"}}'),
    ),
    "github_token": (
        lambda rng: "ghp_" + pick(rng, ALNUM, 36),
        ("push with {}", "https://{}@github.com/a/b", '{{"t":"{}"}}'),
    ),
    "slack_token": (
        lambda rng: f"xoxb-{pick(rng, string.digits, 12)}-{pick(rng, ALNUM, 24)}",
        ("bot {} failed", "t={}"),
    ),
    "stripe_key": (lambda rng: "sk_live_" + pick(rng, ALNUM, 24), ("charge by {}", "using {}.")),
    "google_key": (lambda rng: "AIza" + pick(rng, ALNUM + "-_", 35), ("maps {} quota", "?k={}&v=3")),
    "tocsin_key": (tocsin_key, ("curl -H 'X-Api-Key: {}'", "posted by {}")),
    "jwt": (jwt, ("session {} expired", '{{"t": "{}"}}', "Authorization: Bearer {}")),
    "bearer": (lambda rng: pick(rng, ALNUM, 32), ("Authorization: Bearer {}", "header bearer {} sent")),
    "secret": (
        secret_value,
        ("password={}", 'passwd: "{}"', '{{"client_secret": "{}"}}', "DB_PASSWORD={}", "api_key={} ok"),
    ),
    "userinfo": (
        lambda rng: f"svc:{pick(rng, ALNUM, 12)}",
        ("postgres://{}@db.example.com/x", "GET https://{}@example.com/"),
    ),
}


def negative(rng: random.Random) -> str:
    """A line that looks like personal data and holds none."""
    stamp = f"20{rng.randrange(10, 27)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
    clock = f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}"
    return rng.choice(
        [
            f"{stamp}T{clock}.{rng.randrange(1000):03d}Z started",
            f"{stamp} {clock},{rng.randrange(1000):03d} INFO worker-{rng.randrange(99)} done in 12 ms",
            "request " + "-".join(pick(rng, HEX, size) for size in (8, 4, 4, 4, 12)),
            f"commit {pick(rng, HEX, 40)}",
            f"sha256:{pick(rng, HEX, 64)}",
            f"trace {pick(rng, HEX, 32)} span {pick(rng, HEX, 16)}",
            f"order {rng.randrange(10**7, 10**10)} shipped",
            f"offset {rng.randrange(10**11, 10**12)} lag {rng.randrange(10**6)}",
            f"epoch {rng.randrange(1_600_000_000, 1_800_000_000)}",
            f"epoch_ms {rng.randrange(1_600_000_000_000, 1_800_000_000_000)}",
            f"version {rng.randrange(20)}.{rng.randrange(40)}.{rng.randrange(4000)}-rc.{rng.randrange(9)}",
            f"10.{rng.randrange(256)}.{rng.randrange(256)}.7:{rng.randrange(1024, 65535)} refused",
            f"blk_-{rng.randrange(10**18, 10**19)} terminating",
            f"tokens={rng.randrange(9999)} key=primary",
            "password: incorrect",
            "token expired, secret rotation pending",
            "the cookie banner was shown 1234 times",
            "basic authentication is required for this realm",
            "npm i @scope/name@1.2.3 && git@github.com:org/repo.git",
            f"p99 {rng.random() * 1000:.6f} ms over {rng.randrange(10**6)} calls",
            f"0x{pick(rng, HEX, 16)} at +0x{pick(rng, HEX, 4)}",
            f"arn:aws:lambda:eu-west-1:{rng.randrange(10**11, 10**12)}:function:score",
            f"port range 30000-32767 pid {rng.randrange(65536)}",
            f"lat {rng.uniform(-90, 90):.6f} lon {rng.uniform(-180, 180):.6f}",
            f"memory {rng.randrange(10**9)} of {rng.randrange(10**10)} bytes",
        ]
    )


def corpus(seed: int, count: int) -> list[tuple[str, str, str]]:
    """`count` labelled lines (text, kind, value), equal parts per kind; kind "": no such data."""
    rng = random.Random(seed)
    kinds = [*MAKERS] * 2 + [""] * len(MAKERS) * 2
    lines: list[tuple[str, str, str]] = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        if not kind:
            lines.append((negative(rng), "", ""))
            continue
        make, templates = MAKERS[kind]
        value = make(rng)
        text = rng.choice(templates).format(value)
        around = negative(rng) if rng.random() < 0.3 else ""
        lines.append((f"{around}; {text}" if around else text, kind, value))
    return lines


def quality(redactor: Redactor, lines: list[tuple[str, str, str]]) -> dict[str, tuple[int, int]]:
    """kind -> (values taken out whole, lines); under "" (lines left untouched, lines)."""
    tally: dict[str, tuple[int, int]] = {}
    for text, kind, value in lines:
        out = redactor.text(text)
        good = (out == text) if not kind else value not in out
        hits, total = tally.get(kind, (0, 0))
        tally[kind] = (hits + good, total + 1)
    return tally


_WIDE = {ord(char): chr(ord(char) + 0xFEE0) for char in map(chr, range(0x21, 0x7F))}
_ALIKE = str.maketrans("aceopxyABCEHKMOPTX", "асеорхуАВСЕНКМОРТХ")
_LEET = str.maketrans("aeios", "4310$")
#: How somebody may write a value to get it past rules: name -> the texts it becomes.
EVASIONS: dict[str, Callable[[str], list[str]]] = {
    "invisible characters inside": lambda value: ["\u200b".join(value)],
    "full-width forms": lambda value: [value.translate(_WIDE)],
    "look-alike letters of another script": lambda value: [value.translate(_ALIKE)],
    "digits and signs for letters": lambda value: [value.translate(_LEET)],
    "blanks between characters": lambda value: [" ".join(value)],
    "halves in two fields": lambda value: [value[: len(value) // 2], value[len(value) // 2 :]],
}


def evasion(redactor: Redactor, seed: int, count: int) -> dict[str, tuple[int, int]]:
    """technique -> (values that are gone, values tried), over the corpus's values that the technique changes."""
    tally = {}
    for name, evade in EVASIONS.items():
        hits = total = 0
        for text, kind, value in corpus(seed, count):
            parts = evade(value)
            if not kind or parts == [value]:
                continue
            fields = [text.replace(value, part) for part in parts]
            gone = any(part not in redactor.text(field) for field, part in zip(fields, parts, strict=True))
            hits, total = hits + gone, total + 1
        tally[name] = (hits, total)
    return tally


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def speed(seed: int) -> None:
    rng = random.Random(seed)
    events = list(islice(workload.events("redaction"), 20_000))
    redactor = Redactor()
    took = seconds(lambda: [redactor.event(event) for event in events])
    report.line(f"ordinary events, ~600 B     {len(events) / took:>12,.0f} /s  {took / len(events) * 1e6:.1f} us each")
    fresh = [event["body"] + event["title"] + event["source"] for event in events]
    took = seconds(lambda: [Redactor().event(event) for event in events[:4000]])
    report.line(f"the same, nothing remembered {4000 / took:>11,.0f} /s   {took / 4000 * 1e6:.1f} us each")
    took = seconds(lambda: [redaction.triggers(text) for text in fresh])
    report.line(f"prefilter                   {sum(map(len, fresh)) / took / 1e6:>12.1f} MB/s")
    mixed = [text for text, _, _ in corpus(seed, 20_000)]
    once = Redactor()
    took = seconds(lambda: [once.text(text) for text in mixed])
    report.line(f"corpus, half with hits      {sum(map(len, mixed)) / took / 1e6:>12.1f} MB/s")
    prose = [
        " ".join(rng.choice(fresh) for _ in range(4)) + (" " + email(rng) if i % 10 == 0 else "") for i in range(3000)
    ]
    took = seconds(lambda: [once.text(text) for text in prose])
    report.line(f"long texts, 10 % with a hit {sum(map(len, prose)) / took / 1e6:>12.1f} MB/s")


def loghub(folder: Path) -> None:
    for profile in ("log", "prose"):
        redactor = Redactor(profile=profile)
        lines = hits = size = 0
        kinds: Counter[str] = Counter()
        took = 0.0
        for path in sorted(folder.glob("*_structured.csv")):
            with path.open(newline="", encoding="utf-8", errors="replace") as stream:
                texts = [row["Content"] for row in csv.DictReader(stream)]
            begin = time.perf_counter()
            outs = [redactor.text(text) for text in texts]
            took += time.perf_counter() - begin
            changed = [(a, b) for a, b in zip(texts, outs, strict=True) if a != b]
            for _, out in changed:
                kinds.update(part.split("]")[0] for part in out.split("[redacted:")[1:])
            lines, hits, size = lines + len(texts), hits + len(changed), size + sum(map(len, texts))
            print(f"  {profile:<6}{path.name.split('_')[0]:<14}{len(changed):>6} of {len(texts)} lines changed")
        print(
            f"loghub, {profile}: {hits / lines * 1000:.2f} changed per 1,000 lines,"
            f" {size / took / 1e6:.1f} MB/s, {dict(kinds)}"
        )


def run(seed: int = 7, lines: int = 6_000, folder: Path | None = None) -> dict[str, float]:
    """Prints recall, precision and speed; with the folder of loghub samples, also false hits on real log lines."""
    report.title("Redaction: quality on a labelled corpus, and speed")
    tally = quality(Redactor(), corpus(seed, lines))
    clean, negatives = tally.pop("")
    caught, positives = (sum(pair[i] for pair in tally.values()) for i in (0, 1))
    missed = [f"{kind} {hits / total:.4f}" for kind, (hits, total) in sorted(tally.items()) if hits < total]
    recall, precision = caught / positives, caught / (caught + negatives - clean)
    report.line(
        f"recall {recall:.4f} over {positives} values of {len(tally)} kinds; below 1: {', '.join(missed) or 'none'}"
    )
    report.line(f"precision {precision:.4f} ({negatives - clean} false of {negatives})")
    report.line("recall on values that are written to evade:")
    for name, (hits, total) in evasion(Redactor(), seed, lines).items():
        report.line(f"  {name:<38}{hits / total:.3f} of {total}")
    speed(seed)
    if folder:
        loghub(folder)
    return {"recall": recall, "precision": precision}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loghub", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--lines", type=int, default=6000)
    options = parser.parse_args()
    run(options.seed, options.lines, options.loghub)


if __name__ == "__main__":
    main()
