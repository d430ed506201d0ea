"""What the connectors need from outside: a memory of names, of alerts and of silences."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from tocsin.connectors.alerts import Alert
from tocsin.connectors.mapping import Known
from tocsin.connectors.silences import Silence


class Names(Protocol):
    """Port: which alerts a sender means by a name of its own (a PagerDuty dedup_key, an Opsgenie alias, a group).

    A name is remembered for as long as events are kept. Losing one costs this: what is said under it later
    counts for an alert of that name rather than for its members.
    """

    def recall(self, project: str, name: str) -> Sequence[Known]:
        """What was remembered last under a name; empty when nothing was. Raises Retry."""

    def remember(self, project: str, groups: Mapping[str, Sequence[Known]]) -> None:
        """Replace what is remembered under each name. Raises Retry."""


class AlertStore(Protocol):
    """Port: the alerts of a project as the Alertmanager API shows them. Events are the record, this is a view."""

    def put(self, project: str, alerts: Iterable[Alert]) -> None:
        """Keep alerts under their fingerprints, each merged with the one that is there (alerts.merged)."""

    def get(self, project: str, fingerprints: Collection[str]) -> Sequence[Alert]:
        """Those of some alerts that are kept. Raises Retry."""

    def all(self, project: str) -> Sequence[Alert]:
        """Every alert that is kept, ended ones included for a while. Raises Retry."""


class Leased(Protocol):
    """Port: which projects keep alerts, and when each was last looked through for ended leases."""

    def since(self) -> Sequence[tuple[str, int]]:
        """(project, Unix ms until which it was looked through)."""

    def done(self, project: str, until: int) -> None:
        """Note that a project was looked through."""


class SilenceStore(Protocol):
    """Port: the silences of a project."""

    def put(self, project: str, silence: Silence) -> None:
        """Keep a silence under its id. Raises Retry."""

    def get(self, project: str, silence_id: str) -> Silence | None:
        """The silence of an id, or None. Raises Retry."""

    def all(self, project: str) -> Sequence[Silence]:
        """Every silence, expired ones for as long as they are kept. Raises Retry."""
