"""Calibration: how well scores foretold verdicts, learning from them, and going back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tocsin.api.call import Call, etag
from tocsin.api.models import CalibrationFit, CalibrationReturn
from tocsin.api.ports import ApiRooms, Json
from tocsin.kernel import clock
from tocsin.kernel.http import Answer
from tocsin.signals.verdicts import Calibration, samples_of

_NAME: Final = "calibration"
#: Judged incidents that a fit looks at, newest first.
MAX_JUDGED: Final = 500


def _dated(row: Mapping[str, Any]) -> Json:
    return {**row, "at": clock.rfc3339(row["at"])}


def _shown(calibration: Calibration, version: int) -> Answer:
    data = {
        "version": version,
        "active": calibration.active,
        "versions": [_dated(row) for row in reversed(calibration.versions)],
        "history": [_dated(row) for row in reversed(calibration.history)],
    }
    return Answer(data=data, headers=etag(version))


def get_calibration(call: Call, rooms: ApiRooms) -> Answer:
    """Every kept version with its figures; nothing is active until one was fitted."""
    version, document = rooms.documents.get(call.project, _NAME)
    return _shown(Calibration.from_document(document), version)


def fit_calibration(call: Call, rooms: ApiRooms) -> Answer:
    """Learn a new version from the verdicts there are, and use it from the next commit on."""
    expected = call.expected_version(call.taken(CalibrationFit).version)
    version, document = rooms.documents.get(call.project, _NAME)
    judged = rooms.incidents.judged(call.project, MAX_JUDGED)
    samples = [sample for one, verdict, members in judged for sample in samples_of(one, verdict, members)]
    fitted = Calibration.from_document(document).fit(samples, by=call.principal.key_id, at=rooms.now())
    return _put(call, rooms, fitted, version if expected is None else expected)


def roll_back_calibration(call: Call, rooms: ApiRooms) -> Answer:
    """Use another kept version from the next commit on; without a number, the one before."""
    body = call.taken(CalibrationReturn)
    expected = call.expected_version(body.version)
    version, document = rooms.documents.get(call.project, _NAME)
    back = Calibration.from_document(document).activate(body.to, by=call.principal.key_id, at=rooms.now())
    return _put(call, rooms, back, version if expected is None else expected)


def _put(call: Call, rooms: ApiRooms, calibration: Calibration, expected: int) -> Answer:
    version = rooms.documents.put(call.project, _NAME, calibration.to_document(), expected, rooms.now())
    return _shown(calibration, version)
