"""The finished network as a model in MLflow. The package mlflow is an argument: `tracking` imports it, and nobody else.

`mlflow.pytorch.load_model("runs:/<run id>/model")` gives back the network itself, for any batch size, to be attacked or
trained further. MLflow's other format keeps a graph that can do neither. The price is that MLflow keeps a pickle: who
loads it trusts the run. Sparring itself never loads it; it reads `model.safetensors`.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from orchestrator.addresses import Identity

NAME = "model"  # of the model in its run


def save(mlflow: Any, network: nn.Module, example: np.ndarray[Any, Any], path: Path) -> None:
    """Writes a network (on the CPU) as a folder in MLflow's format, with the signature that a batch of images shows."""
    import torch  # noqa: PLC0415 - it takes a second

    from algorithms.modes import evaluating  # noqa: PLC0415

    with evaluating(network), torch.no_grad():
        logits = network(torch.from_numpy(example)).numpy()
    mlflow.pytorch.save_model(
        network,
        path,
        signature=mlflow.models.infer_signature(example, logits),
        pip_requirements=[
            f"torch=={torch.__version__.partition('+')[0]}"
        ],  # left to itself, MLflow guesses for seconds
        serialization_format="pickle",
    )


def send(mlflow: Any, client: Any, identity: Identity, path: Path) -> None:
    """Sends a folder that `save` wrote, as the one model of its run; sending it again replaces it."""
    found = client.search_logged_models([identity.experiment_id], f"source_run_id = '{identity.run_id}'")
    model = found[0] if found else client.create_logged_model(identity.experiment_id, NAME, identity.run_id)
    outputs = client.get_run(identity.run_id).outputs
    if model.model_id not in {output.model_id for output in (outputs.model_outputs if outputs else [])}:
        client.log_outputs(identity.run_id, [mlflow.entities.LoggedModelOutput(model.model_id, step=0)])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(path, Path(folder) / NAME))
        described = mlflow.models.Model.load(copy)
        described.run_id, described.model_id, described.model_uuid = identity.run_id, model.model_id, model.model_id
        described.artifact_path = model.artifact_location
        described.save(copy / "MLmodel")
        client.log_model_artifacts(model.model_id, str(copy))
    client.finalize_logged_model(model.model_id, "READY")
