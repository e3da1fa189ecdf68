"""What a training job on Azure Machine Learning is made of: its name, its code, its environment, its command.

Nothing here talks to anybody; `training` does.
"""

from __future__ import annotations

import hashlib
import io
import platform
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edge_ai_assets
from edge_ai_assets.resources.azure_ml.pipes_blobs import WAY
from edge_ai_assets.resources.training import SCRIPT

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command

IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
"""The operating system that jobs run on; Python and its packages come from `environment`."""
ROOTS = (
    *("azure-identity", "azure-storage-blob", "dagster-pipes"),  # over_blobs
    *("msgspec", "pydantic", "pyyaml"),  # use case and contract
    *("duckdb", "numpy", "pandas", "pyarrow"),  # features
    *("onnx", "onnxruntime", "scikit-learn", "skl2onnx"),  # the model
)
"""What the training script needs beside itself."""
FOLDER = "edge_ai_assets"


@dataclass(frozen=True)
class Target:
    """Where and as what jobs run.

    Args:
        compute: name of the compute target.
        datastore: name of the datastore that stands for the lake's container.
        experiment: that jobs are listed under.
        image: a Docker image with conda, from which Azure Machine Learning makes the environment.
        identity: client id of the managed identity that jobs run as; None for the compute's own.
        hours: after which a job is cancelled, waiting for a machine included.
    """

    compute: str
    datastore: str
    experiment: str = "edge-ai"
    image: str = IMAGE
    identity: str | None = None
    hours: float = 12.0


@dataclass(frozen=True)
class Work:
    """What a job is to do: names of blobs in the lake's container."""

    code: str
    usecase: str
    training_set: str


def job_name(run: str, work: Work) -> str:
    """The name of the job that does this work for this run, whoever asks, and however often.

    Args:
        run: id of the run, or of the first one of its re-executions.
    """
    told = hashlib.sha256("\n".join([work.code, work.usecase, work.training_set]).encode()).hexdigest()
    return f"candidate-{run[:13]}-{told[:8]}"


def code() -> bytes:
    """The package as a zip file that Python runs from. The same code gives the same bytes."""
    root, file = Path(edge_ai_assets.__file__).parent, io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(root.rglob("*.py")):
            # Without the file's time and mode.
            name = zipfile.ZipInfo(f"{FOLDER}/{path.relative_to(root).as_posix()}")
            archive.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def environment() -> dict[str, Any]:
    """A conda environment with this interpreter's version, and exactly the versions installed here of all
    that the script needs: what was tested together, wherever it runs."""
    pins = [f"{name}=={found}" for name, found in sorted(pinned(ROOTS).items())]
    return {
        "name": "training",
        "channels": ["conda-forge"],
        "dependencies": [f"python={platform.python_version()}", "pip", {"pip": pins}],
    }


def pinned(roots: Iterable[str]) -> dict[str, str]:
    """The installed versions of these distributions and all that they require, by normalised name."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    todo = [(Requirement(root).name, frozenset[str]()) for root in roots]
    seen = set(todo)
    while todo:
        name, extras = todo.pop()
        try:
            found[re.sub(r"[-_.]+", "-", name).lower()] = version(name)
        except PackageNotFoundError:
            continue  # optional on this platform
        for line in requires(name) or []:
            needed = Requirement(line)
            if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                continue
            step = (needed.name, frozenset(needed.extras))
            if step not in seen:
                seen.add(step)
                todo.append(step)
    return found


def command(
    name: str, work: Work, target: Target, folder: str, variables: Mapping[str, str], tags: Mapping[str, str]
) -> Command:
    """The job, ready to be submitted.

    Args:
        folder: of the lake's container, with `way.json`, and for what the job writes: `<folder>/candidate`.
        variables: environment variables, those of Dagster Pipes.
    """
    from azure.ai.ml import Input, Output
    from azure.ai.ml import command as make
    from azure.ai.ml.entities import CommandJobLimits, Environment, ManagedIdentityConfiguration

    store = f"azureml://datastores/{target.datastore}/paths/"
    # Copied to the machine and back: nothing depends on a mount in the middle of training.
    inputs = {
        given: Input(type="uri_file", path=f"{store}{blob}", mode="download")
        for given, blob in {**asdict(work), "way": f"{folder}/{WAY}"}.items()
    }
    script = f"python -m edge_ai_assets.ml.over_blobs ${{{{inputs.way}}}} {SCRIPT}"
    job = make(
        name=name,
        display_name=name,
        experiment_name=target.experiment,
        compute=target.compute,
        environment=Environment(image=target.image, conda_file=environment()),
        environment_variables=dict(variables),
        inputs=inputs,
        outputs={"made": Output(type="uri_folder", path=f"{store}{folder}/", mode="upload")},
        command=f"PYTHONPATH=${{{{inputs.code}}}} {script} --usecase ${{{{inputs.usecase}}}} "
        "--training-set ${{inputs.training_set}} --out ${{outputs.made}}/candidate",
        identity=ManagedIdentityConfiguration(client_id=target.identity),
        tags=dict(tags),
    )
    job.limits = CommandJobLimits(timeout=int(target.hours * 3600))
    return job
