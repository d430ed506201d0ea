"""Fingerprints on the loghub samples: grouping accuracy with one setting for all, and lines per second.

Grouping accuracy is the share of lines whose group holds exactly the lines that the labels put together (Zhu et al.,
Tools and Benchmarks for Automated Log Parsing, ICSE-SEIP 2019).
"""

from __future__ import annotations

import csv
import re
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Final

from bench import report
from bench.quality import shared
from bench.quality.result import Row

from tocsin.signals import fingerprints

#: Grouping accuracy of Drain3 over all 16 samples, with its default and with settings tuned per sample.
PUBLISHED: Final = {"Drain3 default": 0.73, "Drain3 tuned per set": 0.86}
_DIGITS = re.compile(r"\S*\d\S*")


def lines(path: Path) -> tuple[list[str], list[str]]:
    """Contents and labels of a sample."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["Content"] for row in rows], [row["EventId"] for row in rows]


def grouping_accuracy(found: Sequence[Hashable], labels: Sequence[str]) -> float:
    """Share of lines in groups that equal a labelled group exactly."""
    ours, truth = defaultdict(set), defaultdict(set)
    for number, (group, label) in enumerate(zip(found, labels, strict=True)):
        ours[group].add(number)
        truth[label].add(number)
    return sum(len(members) for members in ours.values() if members == truth[labels[min(members)]]) / len(labels)


def run() -> list[Row]:
    report.title("loghub: one setting for all samples")
    table, means = [], [0.0, 0.0]
    spent = count = 0.0
    paths = sorted((shared.folder() / "data/loghub").glob("*_2k.log_structured.csv"))
    for path in paths:
        contents, labels = lines(path)
        began = time.process_time()
        found = [fingerprints.fingerprint({"type": "log", "title": text}) for text in contents]
        spent += time.process_time() - began
        count += len(contents)
        ours = grouping_accuracy(found, labels)
        masked = grouping_accuracy([_DIGITS.sub("<*>", text) for text in contents], labels)
        means[0] += ours / len(paths)
        means[1] += masked / len(paths)
        table.append((path.name.partition("_")[0], f"{ours:.3f}", f"{masked:.3f}", len(set(found)), len(set(labels))))
    report.table(("sample", "ours", "digits masked", "groups", "true groups"), table)
    name = f"loghub, {len(paths)} samples"
    return [
        Row(name, "fingerprints", "mean GA", means[0], {"digits masked": means[1]}, PUBLISHED, "≥ .87"),
        Row(name, "fingerprints", "lines/s/core", count / spent, aim="≥ 60,000", digits=0),
    ]
