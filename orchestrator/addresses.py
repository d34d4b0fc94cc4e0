"""Where a tracking server or database is, which run in it is ours, and where to look at it."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, final
from urllib.parse import urlsplit, urlunsplit

from orchestrator.folders import write_json
from orchestrator.spool import milliseconds

if TYPE_CHECKING:
    from orchestrator.recipe import Tracking

SERVERS = ("http", "https", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@final
class Identity:
    """Who a run is: our id from its start on, MLflow's as soon as MLflow has answered. Kept in a file."""

    def __init__(self, path: Path) -> None:
        """Reads the file, or makes it."""
        self._path = path
        known = json.loads(path.read_bytes()) if path.is_file() else {}
        self.id: str = known.get("id", uuid.uuid4().hex)  # a name can be taken by somebody else's run, this cannot
        self.began: int = known.get("began", milliseconds())
        self.run_id: str = known.get("run_id", "")
        self.experiment_id: str = known.get("experiment_id", "")
        self.assign(self.run_id, self.experiment_id)

    def assign(self, run_id: str, experiment_id: str) -> None:
        """Notes what MLflow calls the run."""
        known = {"id": self.id, "began": self.began, "run_id": run_id, "experiment_id": experiment_id}
        write_json(self._path, known)
        self.run_id, self.experiment_id = run_id, experiment_id


def resolve(tracking: Tracking) -> str:
    """The recipe's address, else MLFLOW_TRACKING_URI, else a SQLite file in the folder of the runs.

    Raises ValueError for an address that is none.
    """
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        return f"sqlite:///{Path(tracking.folder).resolve() / 'mlflow.db'}"
    if kind(uri) not in SERVERS + DATABASES:
        raise ValueError(
            f"tracking.uri: {public(uri)!r} is no tracking address; http://HOST:PORT of `mlflow server`, or a database"
            " such as sqlite:///runs/mlflow.db (MLflow no longer takes folders)"
        )
    return uri


def public(uri: str) -> str:
    """An address without the user name and password that may be in it."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def page(uri: str, identity: Identity) -> str:
    """The page of a run, the server's as long as the run has no id there; for a database, the command that shows it."""
    shown = public(uri)
    if not shown.startswith("http"):
        return f"mlflow ui --backend-store-uri {shown}"
    page = f"/#/experiments/{identity.experiment_id}/runs/{identity.run_id}" if identity.run_id else ""
    return shown.rstrip("/") + page


def artifacts(uri: str, tracking: Tracking) -> str | None:
    """Where a new experiment keeps its files: beside the runs, unless a server decides."""
    return None if kind(uri) in SERVERS else str(Path(tracking.folder).resolve() / "artifacts")


def kind(uri: str) -> str:
    """http, sqlite and so on; a database's driver ("mysql+pymysql") is left out."""
    return uri if uri == "databricks" else urlsplit(uri).scheme.partition("+")[0]
