from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tocsin.kernel.errors import Refusal
from tocsin.signals.calibration import MICRO, Calibrators, sigmoid
from tocsin.signals.scoring import SCORER_VERSION
from tocsin.signals.verdicts import (
    BINS,
    MAX_VERSIONS,
    MIN_JUDGED,
    Calibration,
    Sample,
    figures,
    learn,
    platt,
    samples_of,
)

NOW = 1_790_000_000_000


def judged(count: int, slope: float, offset: float, *, source: str = "prometheus", seed: int = 1) -> list[Sample]:
    """Verdicts of people to whom the logit z means a probability of sigmoid(slope z + offset)."""
    rng = random.Random(seed)
    samples = []
    for n in range(count):
        z = rng.uniform(-3.0, 3.0)
        useful = float(rng.random() < 1.0 / (1.0 + math.exp(-(slope * z + offset))))
        samples.append(Sample(f"inc-{seed}-{n}", source, round(z * MICRO), useful, 1.0))
    return samples


def event(source: str, logit: int, **terms: int) -> dict[str, Any]:
    evidence = [[name, 1.0, micro] for name, micro in terms.items()]
    return {"source": source, "scored_by": SCORER_VERSION, "explain": {"logit": logit, "terms": evidence}}


def test_a_sample_is_the_loudest_evidence_of_a_source_without_its_reliability() -> None:
    members = [
        event("a", 1_000, severity=4_000),
        event("a", 3_000, severity=4_000, source_reliability=2_500),
        event("b", -7),
        event("c", 9) | {"scored_by": "an older one"},
    ]
    assert samples_of("i", "useful", members) == [Sample("i", "a", 1_000, 1.0, 1.0), Sample("i", "b", -7, 1.0, 1.0)]
    assert [(one.useful, one.weight) for one in samples_of("i", "duplicate", members[2:])] == [(0.0, 0.5)]


def test_what_people_meant_is_found_again() -> None:
    found = platt(judged(4000, 0.5, -1.2), 0, "v")
    assert found.slope / MICRO == pytest.approx(0.5, abs=0.06)
    assert found.offset / MICRO == pytest.approx(-1.2, abs=0.12)


def test_few_verdicts_move_little_and_none_nothing() -> None:
    assert platt([], 0, "v").is_identity
    one = platt([Sample("i", "s", 0, 0.0, 1.0)], 0, "v")
    assert -0.3 * MICRO < one.offset < 0


@given(st.lists(st.tuples(st.integers(-8 * MICRO, 8 * MICRO), st.booleans(), st.sampled_from([0.5, 1.0])), max_size=60))
@settings(max_examples=150)
def test_no_verdicts_make_a_calibrator_that_turns_evidence_around(rows: list[tuple[int, bool, float]]) -> None:
    samples = [Sample(f"i{n}", "s", z, float(useful), weight) for n, (z, useful, weight) in enumerate(rows)]
    found = platt(samples, 0, "v")
    assert found.slope >= MICRO // 10
    values = [found.score(z) for z in range(-8 * MICRO, 8 * MICRO, MICRO)]
    assert values == sorted(values)


def test_the_fit_is_the_most_probable_one() -> None:
    samples = judged(60, 1.7, 0.8)

    def cost(a: float, b: float) -> float:
        total = (a - 1.0) ** 2 + b**2  # the prior of precision 2
        for one in samples:
            p = 1.0 / (1.0 + math.exp(-(a * one.micro_logit / MICRO + b)))
            total -= math.log(p if one.useful else 1.0 - p)
        return total

    found = platt(samples, 0, "v")
    a, b = found.slope / MICRO, found.offset / MICRO
    assert all(cost(a, b) <= cost(a + da, b + db) for da in (-0.01, 0, 0.01) for db in (-0.01, 0, 0.01))


def test_figures_by_hand() -> None:
    useful, noise = Sample("a", "s", 0, 1.0, 1.0), Sample("b", "s", 0, 0.0, 1.0)
    made = figures([(0.75, useful), (0.75, noise), (0.25, noise)])
    assert made.brier == pytest.approx((0.0625 + 0.5625 + 0.0625) / 3, abs=1e-4)
    assert made.ece == pytest.approx((2 * 0.25 + 0.25) / 3, abs=1e-4)
    assert len(made.diagram) == BINS
    assert (made.diagram[2], made.diagram[7], made.diagram[0]) == ([1.0, 0.25, 0.0], [2.0, 0.75, 0.5], None)
    assert figures([(1.0, useful)]).diagram[BINS - 1] == [1.0, 1.0, 1.0]


def test_scores_that_were_too_loud_are_better_calibrated_on_verdicts_that_were_not_seen() -> None:
    learned = learn(judged(400, 0.6, -1.5), Calibrators(), "v")["prometheus"]
    assert learned.better
    assert learned.after.brier < learned.before.brier - 0.02
    assert learned.after.ece < learned.before.ece / 2
    later = judged(400, 0.6, -1.5, seed=9)
    unseen = figures([(sigmoid(one.micro_logit), one) for one in later])
    known = learned.calibrator
    extra = round(0.3 * MICRO * learned.reliability)
    assert figures([(known.score(one.micro_logit + extra), one) for one in later]).brier < unseen.brier


def test_a_source_with_too_few_verdicts_or_nothing_to_gain_keeps_what_it_has() -> None:
    samples = judged(MIN_JUDGED - 1, 0.5, -1, source="few") + judged(300, 1.0, 0.0, source="right", seed=3)
    learned = learn(samples, Calibrators(), "v")
    assert set(learned) == {"right"}
    made = Calibration().fit(samples, by="k", at=NOW)
    row = made.versions[-1]["sources"]["right"]
    assert made.calibrators().by_source.keys() == ({"right"} if row["in_use"] else set())
    assert row["in_use"] == (row["after"]["brier"] < row["before"]["brier"])


def test_versions_follow_each_other_and_can_be_gone_back_to() -> None:
    none = Calibration()
    assert (none.label, dict(none.calibrators().by_source)) == ("identity", {})
    with pytest.raises(Refusal) as few:
        none.fit(judged(3, 1, 0), by="k", at=NOW)
    assert few.value.code == "ERR_CONFLICT"
    first = none.fit(judged(300, 0.5, -1), by="anna", at=NOW)
    second = first.fit(judged(300, 0.5, -1) + judged(300, 0.4, -2, seed=4), by="ben", at=NOW + 1)
    assert (first.label, second.label) == ("calibration-1", "calibration-2")
    assert second.calibrators().of("prometheus").version == "calibration-2"
    back = second.activate(None, by="ben", at=NOW + 2)
    assert back.active == 1
    assert back.calibrators().by_source.keys() == first.calibrators().by_source.keys()
    assert back.calibrators().of("prometheus").slope == first.calibrators().of("prometheus").slope
    assert back.activate(0, by="k", at=NOW).label == "identity"
    with pytest.raises(Refusal):
        back.activate(7, by="k", at=NOW)
    assert Calibration.from_document(back.to_document()) == back


def test_the_active_version_is_kept_however_many_follow() -> None:
    samples = judged(60, 0.5, -1)
    made = Calibration()
    for at in range(MAX_VERSIONS + 5):
        made = made.fit(samples, by="k", at=at)
    kept = [row["version"] for row in made.versions]
    assert len(kept) == MAX_VERSIONS
    assert kept[-1] == made.active == MAX_VERSIONS + 5
    held = made.activate(kept[0], by="k", at=99).fit(samples, by="k", at=100)
    assert len(held.versions) == MAX_VERSIONS
    assert kept[0] in [row["version"] for row in held.versions]
