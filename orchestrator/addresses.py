"""Where a tracking server or database is, which run in it is ours, and where to look at it.

An address may hold a password. It is used as it came, and `public` of it is all that is ever written or said.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, final
from urllib.parse import unquote

from orchestrator.folders import write_json
from orchestrator.spool import milliseconds

if TYPE_CHECKING:
    from orchestrator.recipe import Recipe, Tracking

SERVERS = ("http", "https", "databricks")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
VARIABLE = "MLFLOW_TRACKING_URI"
# Who one is: up to the @ before the host. A database's password may hold slashes, as SQLAlchemy reads it.
LOGIN = {True: re.compile(r"(?<=://)[^/?#]*@"), False: re.compile(r"(?<=://)[^:/?#@]*(?::[^@]*)?@")}
NOTHING = re.compile(r"(?!)")
CREDENTIAL = re.compile(r"(?<=[?&])[^=&#]*(?:user|pass|pwd|token|secret|key|uid)[^=&#]*=[^&#]*&?", re.IGNORECASE)


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

    Where the variable holds the recipe's address with a password, it is the variable that counts: a run that is resumed
    has none in its recipe. Raises ValueError for an address that is none.
    """
    given = os.environ.get(VARIABLE, "")
    uri = given if given and public(given) == tracking.uri else tracking.uri or given
    if not uri:
        return f"sqlite:///{Path(tracking.folder).resolve() / 'mlflow.db'}"
    if kind(uri) not in SERVERS + DATABASES:
        raise ValueError(
            f"tracking.uri: {public(uri)!r} is no tracking address; http://HOST:PORT of `mlflow server`, or a database"
            " such as sqlite:///runs/mlflow.db (MLflow no longer takes folders)"
        )
    return uri


def public(uri: str) -> str:
    """An address without the user names, passwords and tokens that may be in it."""
    return CREDENTIAL.sub("", _login(uri).sub("", uri)).rstrip("?&")


def secrets(uri: str) -> tuple[str, ...]:
    """What `public` leaves out, piece by piece, as written and as read: none of it may be written or said."""
    login = _login(uri).search(uri)
    texts = [login[0], login[0][:-1].partition(":")[2]] if login else []
    texts += [found.partition("=")[2].rstrip("&") for found in CREDENTIAL.findall(uri)]
    return tuple(text for piece in texts if piece for text in {piece, unquote(piece)})


def without(hidden: tuple[str, ...], text: str) -> str:
    """`text` with these pieces left out."""
    for piece in hidden:
        text = text.replace(piece, "")
    return text


def shareable(recipe: Recipe) -> Recipe:
    """The recipe as it may be written down: without the credentials in its tracking address."""
    tracking = dataclasses.replace(recipe.tracking, uri=public(recipe.tracking.uri))
    return dataclasses.replace(recipe, tracking=tracking)


def _login(uri: str) -> re.Pattern[str]:
    """What finds user and password; nothing in a file's name is one."""
    return NOTHING if kind(uri) == "sqlite" else LOGIN[kind(uri) in SERVERS]


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
    return uri if uri == "databricks" else uri.partition("://")[0].partition("+")[0].lower()
