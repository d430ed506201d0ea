"""The registry of features: what a score may be made of, what each is worth, and how it reads in words.

A feature's value x lies in [0, 1] and is kept in ten-thousandths, its weight in micro-logits, and its
contribution is the integer weight·x: contributions are never negative and sum exactly. Adding a feature
means adding a row here and computing its x in scoring.py. docs/scoring.md holds the same table and a test
compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: Resolution of x.
SCALE: Final = 10_000
#: Logit of an event without any evidence: S = 0.047.
BIAS: Final = -3_000_000


@dataclass(frozen=True, slots=True)
class Feature:
    """One kind of evidence. `weight` is its contribution in micro-logits at x = 1; `words` explains it
    with {detail}.
    """

    name: str
    meaning: str
    unit: str
    when_missing: str
    cost: str
    weight: int
    words: str

    def contribution(self, x: int) -> int:
        """Micro-logits of a value in ten-thousandths."""
        return self.weight * x // SCALE


REGISTRY: Final = (
    Feature(
        "severity",
        "how bad the sender says it is (OCSF severity_id by source map)",
        "step: info .075, low .2, unknown .25, medium .425, high .625, critical .85, fatal 1",
        "no severity counts as unknown",
        "1 look-up",
        4_000_000,
        "the sender calls it {detail}",
    ),
    Feature(
        "metric_anomaly",
        "how far a metric, or the ratio of two of one event, leaves what its own series has shown before",
        "squashed excess over the record or the usual spread",
        "0 (no metrics, or fewer than 5 earlier points)",
        "up to 8 metrics and 3 ratios, O(1) each",
        1_600_000,
        "metric {detail} leaves the range its series has shown",
    ),
    Feature(
        "blast_radius",
        "distinct entities with this fingerprint in the last 15 to 20 minutes",
        "(n - 1) / (n + 4), n estimated by linear counting in 64 bits",
        "0 (no entity)",
        "1 bitmap of 256 bits",
        1_200_000,
        "{detail} distinct entities say the same within about 15 minutes",
    ),
    Feature(
        "text_cues",
        "words of serious trouble in title, type or the start of body",
        "1 strong word, .25 weak word",
        "0",
        "600 characters, 1 set intersection",
        1_000_000,
        'the text says "{detail}"',
    ),
    Feature(
        "rate_surprise",
        "more events of this fingerprint in about 7 minutes than its past rate explains",
        "(z - 2) / 8 clipped, z = (seen - expected) / sqrt(expected + 1)",
        "0",
        "2 decaying counters",
        800_000,
        "it comes much more often than usual ({detail} in about 7 minutes)",
    ),
    Feature(
        "ungraded_burst",
        "that surprise again, where the sender states no severity and only behaviour can tell",
        "as rate_surprise",
        "0 (a severity is known)",
        "none",
        850_000,
        "nobody graded it, so that its burst counts twice",
    ),
    Feature(
        "novelty",
        "the fingerprint is new, or back after a long silence; half of it when only the series is new",
        "1 at first sight, halves by age 1 h; gap / (gap + 7 d); divided by 1 + flaps",
        "1 (nothing is known of it)",
        "2 look-ups",
        600_000,
        "{detail}",
    ),
    Feature(
        "criticality",
        "how much more than usual depends on the entity's service (declared topology)",
        "2c - 1 for a declared criticality c above .5",
        "0 (service unknown or undeclared)",
        "1 look-up",
        500_000,
        "it concerns {detail}, on which much depends",
    ),
    Feature(
        "recurrence",
        "it fires again after it was resolved within the last day",
        "1 / (flaps - 1), less the more it flaps (half-life 1 h)",
        "0",
        "1 look-up",
        300_000,
        "it is back after it had been resolved",
    ),
    Feature(
        "source_reliability",
        "share of the source's judged signals that people confirmed",
        "0 to 1",
        "0 (no verdicts yet)",
        "1 look-up",
        300_000,
        "people usually confirm what {detail} says",
    ),
)
BY_NAME: Final[Mapping[str, Feature]] = {feature.name: feature for feature in REGISTRY}

#: x of severity by OCSF severity_id, in ten-thousandths.
SEVERITY_X: Final[Mapping[int, int]] = {
    0: 2_500,
    1: 750,
    2: 2_000,
    3: 4_250,
    4: 6_250,
    5: 8_500,
    6: 10_000,
    99: 2_500,
}


def table_markdown() -> str:
    """The registry as the Markdown table of docs/scoring.md."""
    head = "| feature | meaning | x from 0 to 1 | when missing | cost | weight (logits) |\n"
    return f"{head}|---|---|---|---|---|---|\n" + "".join(
        f"| `{f.name}` | {f.meaning} | {f.unit} | {f.when_missing} | {f.cost} | {f.weight / 1e6:g} |\n"
        for f in REGISTRY
    )


STRONG_X: Final = 10_000
WEAK_X: Final = 2_500
#: Characters of title, type and body that are searched for cues.
CUE_CHARACTERS: Final = 600


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STRONG_WORDS: Final = _words(
    """
    outage oom oomkilled oomkilling panic segfault corruption corrupted deadlock deadlocked meltdown
    breach breached ransomware malware exfiltration exfiltrated backdoor rootkit compromised intrusion
    """
)
_STRONG_PHRASES: Final = (
    "data loss",
    "lost data",
    "out of memory",
    "no space left",
    "disk full",
    "split brain",
    "quorum lost",
    "lost quorum",
    "privilege escalation",
    "sql injection",
    "brute force",
    "remote code execution",
    "total loss",
    "all replicas",
    "unauthorized access",
    "break in attempt",
)
_WEAK_WORDS: Final = _words(
    """
    fail failed fails failing failure failures error errors exception crash crashed crashing crashloopbackoff
    down unavailable unreachable timeout timeouts refused degraded expired evicted throttled throttling denied
    forbidden unauthorized unhealthy overloaded saturated exhausted violation attack vulnerability leaked
    stalled stuck aborted rejected
    """
)
_CUE_WORDS: Final = _STRONG_WORDS | _WEAK_WORDS
#: Last words of the strong phrases: no phrase can be there without one of them.
_PHRASE_ENDS: Final = frozenset(phrase.rpartition(" ")[2] for phrase in _STRONG_PHRASES)
_NEGATIONS: Final = frozenset(("no", "not", "without", "never", "zero", "0", "non", "resolved", "recovered"))
_BREAKS: Final = {c: " " for c in range(128) if not chr(c).isalnum()}


def _negated(words: list[str], cue: str) -> bool:
    """True when every occurrence of the cue comes right after a negation, as in "no data loss"."""
    return all(i and words[i - 1] in _NEGATIONS for i, word in enumerate(words) if word == cue)


def text_cues(title: str, kind: str, body: str) -> tuple[int, str]:
    """x of the cues in a text, in ten-thousandths, and the cue that decided (empty when none)."""
    text = f"{title[:CUE_CHARACTERS]} {kind[:100]} {body[:CUE_CHARACTERS]}"[:CUE_CHARACTERS]
    words = text.lower().translate(_BREAKS).split()
    bag = set(words)
    found = bag & _CUE_WORDS
    phrases: list[str] = []
    if bag & _PHRASE_ENDS:
        spaced = f" {' '.join(words)} "
        phrases = [
            phrase
            for phrase in _STRONG_PHRASES
            if (at := spaced.find(f" {phrase} ")) >= 0 and spaced[:at].rpartition(" ")[2] not in _NEGATIONS
        ]
    strong = phrases + sorted(word for word in found & _STRONG_WORDS if not _negated(words, word))
    if strong:
        return STRONG_X, strong[0]
    weak = sorted(word for word in found if word in _WEAK_WORDS and not _negated(words, word))
    return (WEAK_X, weak[0]) if weak else (0, "")
