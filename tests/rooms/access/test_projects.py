"""Projects: settings that are closed, versions that are kept, and strangers who see nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.access_fakes import NOW, Clock, ProjectRows, refused

from tocsin.access.principals import Principal
from tocsin.access.projects import CachedProjects, Project, Projects, ProjectSettings, Quota

ADMIN = Principal("ops", "K" * 12, frozenset({"admin:*"}))


@pytest.fixture
def rows() -> ProjectRows:
    return ProjectRows()


@pytest.fixture
def projects(rows: ProjectRows) -> Projects:
    return Projects(rows, lambda project: project == "ops")


def mine(project: Project) -> Principal:
    return replace(ADMIN, project=project.id)


def test_a_project_is_made_with_least_settings_and_shown_whole(projects: Projects) -> None:
    made = projects.create(ADMIN, {"name": "Shop", "settings": {"redact_keys": ["iban", "ssn", "iban"]}}, NOW)
    shown = projects.get(mine(made), made.id).as_json()
    assert shown["id"].startswith("prj_")
    assert shown["settings"]["redact_keys"] == ["iban", "ssn"]
    assert shown["settings"]["redaction"] == "on"
    assert (shown["status"], shown["version"], shown["created_by"]) == ("active", 1, ADMIN.credential)


def test_only_the_operator_makes_projects(projects: Projects, rows: ProjectRows) -> None:
    assert refused(projects.create, replace(ADMIN, project="p1"), {"name": "x"}, NOW).code == "ERR_SCOPE"
    assert rows.rows == {}


def test_a_foreign_project_is_not_found_whatever_is_asked(projects: Projects) -> None:
    made = projects.create(ADMIN, {"name": "Shop"}, NOW)
    stranger = replace(ADMIN, project="p2")
    for call in (
        lambda: projects.get(stranger, made.id),
        lambda: projects.change(stranger, made.id, {"name": "theirs"}, None),
        lambda: projects.change(stranger, made.id, {"status": "suspended"}, None),
        lambda: projects.get(ADMIN, "prj_of_nobody"),
    ):
        assert refused(call).code == "ERR_NOT_FOUND"
    assert projects.of(made.id).name == "Shop"


@pytest.mark.parametrize(
    "body",
    [
        {"id": "prj_x"},
        {"status": "active"},
        {"created_at": 1},
        {"created_by": "key_x"},
        {"quota": {"events_per_second": 10**6}},
        {"rate": 5},
        {"name": "fine", "status": "suspended"},
    ],
)
def test_fields_of_the_server_are_refused_by_name(projects: Projects, body: dict[str, Any]) -> None:
    made = projects.create(ADMIN, {"name": "Shop"}, NOW)
    refusal = refused(projects.change, mine(made), made.id, body, None)
    assert (refusal.code, refusal.status) == ("ERR_READONLY_FIELD", 400)
    assert projects.of(made.id) == made


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"nmae": "x"},
        {"name": ""},
        {"name": "a" * 81},
        {"name": "a\u202eb"},
        {"name": 5},
        {"settings": []},
        {"settings": {"quota": {"events_per_second": 10**6}}},
        {"settings": {"redact_keys": "iban"}},
        {"settings": {"redact_keys": ["x"] * 101}},
        {"settings": {"redact_keys": ["a\nb"]}},
        {"settings": {"redaction": "sometimes"}},
        {"settings": {"redaction": []}},
        {"settings": {"redaction_profile": None}},
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(projects: Projects, body: Any) -> None:
    made = projects.create(ADMIN, {"name": "Shop"}, NOW)
    assert refused(projects.change, mine(made), made.id, body, None).code == "ERR_SCHEMA"
    assert projects.of(made.id) == made


def test_a_change_needs_the_version_that_was_read(projects: Projects) -> None:
    made = projects.create(ADMIN, {"name": "Shop"}, NOW)
    changed = projects.change(mine(made), made.id, {"settings": {"redact_keys": ["iban"]}}, 1)
    assert (changed.version, changed.settings.redact_keys, changed.name) == (2, ("iban",), "Shop")
    assert refused(projects.change, mine(made), made.id, {"name": "x"}, 1).code == "ERR_CONFLICT"


def test_turning_redaction_off_needs_an_approval_and_turning_it_on_does_not(projects: Projects) -> None:
    made = projects.create(ADMIN, {"name": "Shop"}, NOW)
    off = {"settings": {"redaction": "off"}}
    refusal = refused(projects.change, mine(made), made.id, off, None)
    assert (refusal.code, refusal.status) == ("ERR_APPROVAL_REQUIRED", 403)
    assert refused(projects.create, ADMIN, {"name": "x", **off}, NOW).code == "ERR_APPROVAL_REQUIRED"
    assert projects.change(mine(made), made.id, off, None, approved=True).settings.redaction == "off"
    assert projects.change(mine(made), made.id, {"name": "Shop 2"}, None).settings.redaction == "off"
    assert projects.change(mine(made), made.id, {"settings": {"redaction": "on"}}, None).settings.redaction == "on"


def test_a_project_without_a_record_has_default_settings_and_can_be_changed(projects: Projects) -> None:
    old = replace(ADMIN, project="older")
    assert projects.get(old, "older").settings == ProjectSettings()
    assert projects.change(old, "older", {"name": "Older"}, 0).version == 1


def test_cached_projects_follow_within_their_time_and_refuse_by_status(projects: Projects) -> None:
    clock = Clock()
    cached = CachedProjects(projects.of, clock.s, ttl_s=20)
    made = projects.create(ADMIN, {"name": "Shop"}, NOW)
    assert cached.require_active(made.id) == made
    projects.change(ADMIN, made.id, {"status": "suspended"}, None)
    assert cached.require_active(made.id) == made
    clock.ms += 20_000
    assert refused(cached.require_active, made.id).code == "ERR_SCOPE"
    with pytest.raises(ValueError, match="ttl_s"):
        CachedProjects(projects.of, clock.s, ttl_s=31)


def test_the_cache_is_bounded(projects: Projects) -> None:
    reads: list[str] = []

    def read(name: str) -> Project:
        reads.append(name)
        return projects.of(name)

    cached = CachedProjects(read, Clock().s, size=2)
    for name in ("a", "b", "c", "c", "a"):
        cached.of(name)
    assert reads == ["a", "b", "c", "a"]


@pytest.mark.parametrize("wrong", [{"requests_per_second": 0}, {"events_burst": 10**7}, {"firing_share_percent": 91}])
def test_a_quota_has_bounds(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Quota(**wrong)


def test_the_operator_sets_quota_and_status_of_projects_and_nothing_else_of_theirs(projects: Projects) -> None:
    made = projects.create(ADMIN, {"name": "Shop", "quota": {"requests_per_second": 5}}, NOW)
    assert made.quota == Quota(requests_per_second=5)
    changed = projects.change(ADMIN, made.id, {"quota": {"events_per_second": 9}, "status": "suspended"}, 1)
    assert (changed.quota, changed.status) == (Quota(requests_per_second=5, events_per_second=9), "suspended")
    for body in ({"name": "theirs"}, {"settings": {"redact_keys": []}}):
        assert refused(projects.change, ADMIN, made.id, body, None).code == "ERR_READONLY_FIELD"
    for body in ({"status": "gone"}, {"quota": {"events_burst": 10**7}}, {"quota": {"price": 1}}):
        assert refused(projects.change, ADMIN, made.id, body, None).code == "ERR_SCHEMA"


def test_the_operator_cannot_lock_itself_out(projects: Projects) -> None:
    assert refused(projects.change, ADMIN, "ops", {"status": "suspended"}, None).code == "ERR_READONLY_FIELD"
    assert projects.change(ADMIN, "ops", {"quota": {"events_burst": 5}, "name": "Ops"}, None).quota.events_burst == 5


def test_everybody_sees_their_own_project_and_the_operator_all(projects: Projects) -> None:
    made = [projects.create(ADMIN, {"name": name}, NOW + at).id for at, name in enumerate(("one", "two"))]
    assert [one.id for one in projects.all(ADMIN)] == made
    assert [one.id for one in projects.all(replace(ADMIN, project=made[1]))] == [made[1]]
    assert [one.id for one in projects.all(replace(ADMIN, project="older"))] == ["older"]


def test_a_deleted_project_stays_deleted_and_its_callers_are_told(projects: Projects) -> None:
    made = projects.create(ADMIN, {"name": "Shop"}, NOW)
    gone = projects.delete(projects.deletable(mine(made), made.id))
    assert (gone.status, gone.version) == ("deleted", 2)
    assert refused(projects.deletable, ADMIN, made.id).code == "ERR_PROJECT_DELETED"
    assert refused(projects.change, ADMIN, made.id, {"status": "active"}, None).code == "ERR_PROJECT_DELETED"
    cached = CachedProjects(projects.of, lambda: 0.0)
    refusal = refused(cached.require_active, made.id)
    assert (refusal.code, refusal.status) == ("ERR_PROJECT_DELETED", 410)


def test_a_project_is_deleted_by_its_own_or_the_operator_who_cannot_delete_itself(projects: Projects) -> None:
    one, two = (projects.create(ADMIN, {"name": name}, NOW) for name in ("Shop", "Bank"))
    assert refused(projects.deletable, mine(one), two.id).code == "ERR_NOT_FOUND"
    assert projects.deletable(ADMIN, two.id) == two
    assert refused(projects.deletable, ADMIN, "ops").code == "ERR_CONFLICT"
    assert refused(projects.own, ADMIN, two.id).code == "ERR_NOT_FOUND", "exports are the project's own"


@pytest.mark.parametrize("days", [0, -1, 31, 1.5, "7", True, None])
def test_retention_is_within_the_deployments(rows: ProjectRows, days: Any) -> None:
    projects = Projects(rows, lambda project: project == "ops", 30)
    made = projects.create(ADMIN, {"name": "Shop", "settings": {"retention_days": 7}}, NOW)
    assert made.settings.retention_days == 7
    body = {"settings": {"retention_days": days}}
    assert refused(projects.change, mine(made), made.id, body, None).details[0].field == "settings.retention_days"
