"""All configuration of a function, read once from its environment and frozen. Nothing has a hidden default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Settings:
    """Names of resources (empty where the function was not given one) and the deployment's choices."""

    stack: str
    stage: str
    table: str = ""
    bucket: str = ""
    data_keys: str = ""
    master_key: str = ""
    journal_bucket: str = ""
    bus: str = ""
    score_queue: str = ""
    correlate_queue: str = ""
    notify_queue: str = ""
    relay_queue: str = ""
    digest_queue: str = ""
    seal_queue: str = ""
    supervise_queue: str = ""
    journal_key: str = ""
    cosigner_key: str = ""
    privacy_queue: str = ""
    secret_pepper: str = ""
    secret_cursor: str = ""
    secret_pseudonym: str = ""
    secret_webhook: str = ""
    secret_envelope: str = ""
    api_url: str = ""
    secret_token: str = ""
    egress_allow: str = ""
    mail_from: str = ""
    smtp_host: str = ""
    cors_origin: str = ""
    ops_project: str = ""
    enable_sentinelred: str = ""
    retention_days: int = 90
    tick_seconds: int = 10
    quiet_minutes: int = 60

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """TOCSIN_<FIELD> for every field. Raises KeyError naming a required one that is missing."""
        values: dict[str, str | int] = {}
        for field in fields(cls):
            name = f"TOCSIN_{field.name.upper()}"
            if name in environment:
                text = environment[name]
                values[field.name] = int(text) if field.type == "int" else text
            elif field.name in ("stack", "stage"):
                raise KeyError(name)
        return cls(**values)  # type: ignore[arg-type]

    def require(self, name: str) -> str:
        """A resource this function cannot work without. Raises KeyError with the variable's name."""
        value = getattr(self, name)
        if not value:
            raise KeyError(f"TOCSIN_{name.upper()}")
        return str(value)


@lru_cache(maxsize=1)
def settings() -> Settings:
    return Settings.from_environment(os.environ)
