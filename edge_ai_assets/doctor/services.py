"""Checks of the services that are no storage account: one call each, with the client that uses them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from edge_ai_assets.doctor import causes
from edge_ai_assets.doctor.finding import Cause, Finding
from edge_ai_assets.profiles import Features, Ingestion, Publishing, Registry, Training
from edge_ai_assets.resources.identity.secret import SecretError, reveal

SECONDS = (4.0, 8.0)
"""To connect, and to answer."""


def ingestion(section: Ingestion) -> Finding:
    from edge_ai_assets.resources.ingestion import data_factory

    where = f"{urlsplit(section.endpoint).netloc} {section.factory}/{section.pipeline}"
    return _asked("azure.ingestion", where, lambda: data_factory.configured(section).look())


def training(section: Training) -> Finding:
    path = (
        f"/subscriptions/{section.subscription}/resourceGroups/{quote(section.resource_group, safe='')}"
        f"/providers/Microsoft.MachineLearningServices/workspaces/{quote(section.workspace, safe='')}"
    )
    where = f"{urlsplit(section.endpoint).netloc} {section.workspace}"

    def ask() -> None:
        from edge_ai_assets.resources.calling.control_plane import ControlPlane
        from edge_ai_assets.resources.identity import credentials

        scope = f"{section.endpoint}/.default"
        service = ControlPlane(
            section.endpoint, credentials.token(section.credential, section.ca), scope, section.ca, *SECONDS
        )
        service.call("looking for the workspace", "GET", path, query={"api-version": "2024-04-01"})

    return _asked("azure.training", where, ask)


def publishing(section: Publishing) -> Finding:
    path = f"/v1.0/myorg/groups/{section.workspace}/datasets/{section.semantic_model}"

    def ask() -> None:
        from edge_ai_assets.resources.calling.control_plane import ControlPlane
        from edge_ai_assets.resources.identity import credentials

        scope = "https://analysis.windows.net/powerbi/api/.default"
        service = ControlPlane(section.endpoint, credentials.token(section.credential), scope, None, *SECONDS)
        service.call("looking for the semantic model", "GET", path)

    return _asked("azure.publishing", f"{urlsplit(section.endpoint).netloc} {section.semantic_model}", ask)


def livy(section: Features) -> Finding:
    """Its batches, which is what jobs are submitted as. Source: Apache Livy, REST API, GET /batches."""
    assert section.endpoint is not None
    endpoint = section.endpoint

    def ask() -> None:
        import requests

        who = (section.user, reveal(section.password)) if section.user and section.password else None
        verify = str(section.ca) if section.ca else True
        answer = requests.get(
            f"{endpoint}/batches", params={"size": "1"}, auth=who, timeout=SECONDS, verify=verify,
            allow_redirects=False,
        )  # fmt: skip
        if not 200 <= answer.status_code < 300:
            raise requests.HTTPError(response=answer)
        if "json" not in answer.headers.get("Content-Type", ""):
            raise requests.exceptions.InvalidHeader("no JSON")

    return _asked("azure.features", endpoint, ask)


def registry(service: str, section: Registry) -> Finding:
    """That we may look for a tag there. Source: OCI distribution specification, "Pull" and "Error Codes"."""

    def ask() -> None:
        from requests.exceptions import InvalidHeader

        from edge_ai_assets.resources import registries

        at = registries.registry(section).at
        # Whether there is one does not matter, only that we may look, and that a registry says so.
        with at.ask("GET", "manifests/latest", doing="asking", also=frozenset({404})) as answer:
            if answer.status_code == 404 and b'"errors"' not in answer.content:
                raise InvalidHeader("no registry")

    return _asked(service, section.repository, ask)


def database(file: Path) -> dict[str, Any] | None:
    """What a dagster.yaml says of Dagster's PostgreSQL; None when it names none.

    Raises:
        ValueError: it is no such file.
    """
    import yaml

    try:
        declared = yaml.safe_load(file.read_text("utf-8")) or {}
        found: dict[str, Any] | None = (declared.get("storage") or {}).get("postgres")
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, OSError) as error:
        # Without the cause: it shows the line, which may hold a password.
        raise ValueError(f"{file} cannot be read as a dagster.yaml ({type(error).__name__})") from None
    return found


def postgres(file: Path, found: dict[str, Any]) -> Finding:
    """Dagster's database.

    Args:
        file: the dagster.yaml that names it.
        found: see `database`.
    """

    def ask() -> None:
        import sqlalchemy
        from dagster_postgres.utils import pg_url_from_config

        engine = sqlalchemy.create_engine(
            pg_url_from_config(_given(found, file)), connect_args={"connect_timeout": int(SECONDS[0])}
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))

    return _asked("dagster.storage", str(file), ask)


def _given(found: Any, file: Path) -> Any:
    """With the variables' values: Dagster takes `{env: NAME}` for any of them."""
    if not isinstance(found, dict):
        return found
    if set(found) == {"env"}:
        if not (value := os.environ.get(str(found["env"]))):
            raise SecretError(f"the environment variable {found['env']}, which {file} refers to, is not set")
        return value
    return {name: _given(value, file) for name, value in found.items()}


def _asked(service: str, where: str, ask: Callable[[], Any]) -> Finding:
    """Whatever a client raises is a finding: no error of one service may hide those of the others."""
    try:
        ask()
    except Exception as error:
        cause, detail = _why(error)
        return Finding(service, where, cause, detail)
    return Finding(service, where)


def _why(error: Exception) -> causes.Why:
    from edge_ai_assets.delivery.errors import DeniedError

    if type(error).__name__ == "OperationalError":
        return _of_postgres(str(getattr(error, "orig", error)))
    found = causes.why(error)
    if isinstance(error, DeniedError) and found[0] is Cause.OTHER:
        return Cause.CREDENTIAL, ""
    if found[0] is Cause.OTHER and (response := getattr(error, "response", None)) is not None:
        return causes.of_status(response.status_code, response.headers)
    return found


def _of_postgres(said: str) -> causes.Why:
    """libpq says it in words alone; they may hold the user's name, and never the password: but of an address
    with an @ in the password, they show what stands behind it as the host's name."""
    words = {
        "could not translate host name": Cause.NAME,
        "Connection refused": Cause.REFUSED,
        "timeout expired": Cause.TIMEOUT,
        "password authentication failed": Cause.CREDENTIAL,
        "no password supplied": Cause.CREDENTIAL,
        "does not exist": Cause.MISSING,
        "certificate verify failed": Cause.UNTRUSTED,
        "no pg_hba.conf entry": Cause.PERMISSION,
    }
    text, cause = next((each for each in words.items() if each[0] in said), ("", Cause.OTHER))
    if cause is Cause.NAME:
        return cause, "an @ in the password is written as %40"
    lines = said.strip().splitlines() or [""]
    return cause, next((line for line in lines if text in line), lines[-1])[:200]
