"""`make demo-azurite`: the demo's story with real servers in the place of the embedded defaults.

Storage of the cloud and of the hub is Azurite, the registry a docker-registry, Dagster's storage PostgreSQL;
training is a job that the real Azure ML client submits, queue and function are the hub's. Of Azure's control
plane, and of the functions' host, there are contract stubs: they cannot be had here.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console

from edge_ai_assets import local
from edge_ai_assets import usecase as usecases
from edge_ai_assets.azure.arriving import Arriving
from edge_ai_assets.commands import show
from edge_ai_assets.demo import story
from edge_ai_assets.demo.outcome import Outcome
from edge_ai_assets.demo.world import World
from edge_ai_assets.home import Home
from edge_ai_assets.resources.storage.account import HUB_API_VERSION
from edge_ai_assets.resources.storage.queue import StorageQueue
from edge_ai_assets.settings import Settings
from edge_ai_assets.stack_hub.provision import PSEUDONYM_KEY, private_key
from edge_ai_assets_tests.contract import azure_ml
from edge_ai_assets_tests.integration import docker_registry, postgres
from edge_ai_assets_tests.integration.azurite import KEYS, Azurite, started
from edge_ai_assets_tests.integration.faults import Proxy

CHECKOUT = Path(__file__).resolve().parents[2]
BEHIND_A_QUEUE = "bergen"
"""The site in the connected form: its insights go to the hub's queue, and the function forwards them."""
MINUTES_OF_A_SIGNATURE = 60


class Places(World):
    """The world where files are landed in a container, and packages arrive in one."""

    def deliver(self, path: Path, folder: Path) -> None:
        if not folder.is_relative_to(self.home.landing):
            return super().deliver(path, folder)
        name = f"{folder.relative_to(self.home.landing).as_posix()}/{path.name}"
        self._account().container("landing").upload_blob(name, path.read_bytes())

    def all_home(self) -> bool:
        return not Arriving(self.home, Settings.load().azure).waiting() and super().all_home()

    def _account(self) -> Any:
        from edge_ai_assets.resources import configured

        return configured.storage(Settings.load().azure)


def main() -> int:
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="edge-ai-") as name, ExitStack() as stack:
        home = Settings.load().folders()
        usecase = usecases.loads(_usecase())
        story.set_up(home, usecase)
        servers = Servers(Path(name), stack)
        os.environ.update(servers.settings())
        _on_postgresql(home, servers.database)
        stack.enter_context(_function(home, servers))
        outcome = story.tell(home, usecase, None, console, Places)
        servers.judge(outcome, home)
        show.outcome(outcome, show.console())
    return 0 if outcome.kept else 1


class Servers:
    """What is there in place of the embedded defaults, until the stack is closed."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.azurite = started()
        stack.callback(_end, self.azurite)
        for container in ("lake", "landing", "uplink", "$web"):
            self.azurite.container(container)
        hub = self.azurite.account("hub")
        hub.container("egress").create_container()
        for queue in ("insights", "receipts", "insights-poison"):
            StorageQueue(self.azurite.account("hub", "queue"), queue).create()
        # All that goes to the hub passes here and is looked at afterwards.
        self.hub_blobs = stack.enter_context(Proxy(self.azurite.blobs))
        self.hub_queues = stack.enter_context(Proxy(self.azurite.queues))
        self.registry = stack.enter_context(docker_registry.serving(folder / "registry", password=True))
        self.database = stack.enter_context(postgres.server()).database()
        self.ml = stack.enter_context(azure_ml.workspace(folder / "ml", self.azurite.account("cloud")))
        self.login = stack.enter_context(self.ml.login())

    def settings(self) -> dict[str, str]:
        """The environment in which both sides find them. What is secret is in variables of its own."""
        cloud, repository = self.azurite.account("cloud").endpoint, self.registry.repository
        return {
            "AZURITE_CLOUD_KEY": KEYS["cloud"],
            "AZURITE_HUB_KEY": KEYS["hub"],
            "AZURITE_UPLINK_SAS": self.signature(),
            "REGISTRY_TOKEN": docker_registry.PASSWORD,
            "DAGSTER_POSTGRES_URL": self.database,
            **_section("AZURE__STORAGE", ENDPOINT=cloud, CREDENTIAL__KEY__ENV="AZURITE_CLOUD_KEY"),
            **_section(
                "AZURE__REGISTRY",
                REPOSITORY=repository,
                USER=docker_registry.USER,
                TOKEN__ENV="REGISTRY_TOKEN",
            ),
            **_section(
                "AZURE__TRAINING", **{name.upper(): str(value) for name, value in self.ml.section().items()}
            ),
            **self.login,
            **_section("STACK_HUB__UPLINK", ENDPOINT=cloud, CREDENTIAL__SAS__ENV="AZURITE_UPLINK_SAS"),
            **_section(
                "STACK_HUB__QUEUE",
                QUEUES=f"http://127.0.0.1:{self.hub_queues.port}/hub",
                BLOBS=f"http://127.0.0.1:{self.hub_blobs.port}/hub",
                CREDENTIAL__KEY__ENV="AZURITE_HUB_KEY",
            ),
            **_section(
                "STACK_HUB__REGISTRY",
                REPOSITORY=repository,
                USER=docker_registry.USER,
                TOKEN__ENV="REGISTRY_TOKEN",
            ),
        }

    def signature(self) -> str:
        from azure.storage.blob import generate_container_sas

        until = datetime.now(UTC) + timedelta(minutes=MINUTES_OF_A_SIGNATURE)
        return generate_container_sas(
            "cloud", "uplink", account_key=KEYS["cloud"], permission="rcw", expiry=until
        )

    def judge(self, outcome: Outcome, home: Home) -> None:
        """Add what must be true of the servers."""
        cloud = self.azurite.account("cloud")
        there = set(cloud.container("lake").list_blob_names())
        here = {
            path.relative_to(home.lake).as_posix()
            for folder in (home.raw_telemetry, home.training_sets, home.tables)
            for path in folder.rglob("*")
            if path.suffix == ".parquet" or path.parent.name == "_delta_log"
        }
        lacking = {name for name in here if not name.rpartition("/")[2].startswith(".")} - there
        outcome.promise(
            "the lake in the account has what the home has", bool(here) and not lacking,
            f"{len(here)} files, {len(lacking)} lacking {sorted(lacking)[:2] or ''}",
        )  # fmt: skip
        rows = _rows(cloud)
        outcome.promise(
            "its tables are read as Delta tables", rows == outcome.status["global"]["insights"],
            f"{rows:,} insights",
        )  # fmt: skip
        pages = set(cloud.container("$web").list_blob_names())
        outcome.promise(
            "the report is on the static website", "index.html" in pages, ", ".join(sorted(pages))
        )
        versions = {*self.hub_blobs.versions(), *self.hub_queues.versions()}
        outcome.promise(
            f"the hub was spoken to in version {HUB_API_VERSION} or older",
            bool(versions) and max(versions) <= HUB_API_VERSION, ", ".join(sorted(versions)),
        )  # fmt: skip
        releases = outcome.status["global"]["releases"]
        tags = self.tags()
        outcome.promise(
            "every release is in the registry",
            {f"release-{number}" for number in range(1, releases + 1)} <= tags, f"{len(tags)} tags",
        )  # fmt: skip
        runs = self.runs()
        outcome.promise("Dagster's runs are kept by PostgreSQL", runs > 0, f"{runs} runs")
        done = [job["status"] for job in self.ml.jobs.values()]
        outcome.promise(
            "every model was trained by a job of the workspace",
            len(done) >= 2 and set(done) == {"Completed"}, f"{len(done)} jobs, {len(self.ml.models)} models",
        )  # fmt: skip

    def runs(self) -> int:
        """Runs in Dagster's database that succeeded."""
        from sqlalchemy import create_engine, text

        with create_engine(self.database).connect() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM runs WHERE status = 'SUCCESS'")) or 0)

    def tags(self) -> set[str]:
        """Tags of the repository, as the registry lists them."""
        import httpx

        host, _, name = self.registry.repository.partition("/")
        who = (docker_registry.USER, docker_registry.PASSWORD)
        found = httpx.get(f"http://{host}/v2/{name}/tags/list", auth=who).json()
        return set(found["tags"] or ())


def _section(name: str, **fields: str) -> dict[str, str]:
    return {f"EDGE_AI_{name}__{field}": value for field, value in fields.items()}


def _usecase() -> str:
    """The pump stations, one of them in the connected form."""
    text = (usecases.BUNDLED / "pump-station.yaml").read_text()
    found = text.replace(f"{{name: {BEHIND_A_QUEUE}, ", f"{{name: {BEHIND_A_QUEUE}, road: queue, ")
    assert found != text
    return found


def _on_postgresql(home: Home, database: str) -> None:
    """Dagster's storage is PostgreSQL, all else as in the checkout's own instance."""
    storage = "storage:\n  postgres:\n    postgres_url: {env: DAGSTER_POSTGRES_URL}\n"
    shutil.rmtree(home.dagster)
    home.instance.write_text(f"{(local.CHECKOUT / 'dagster.yaml').read_text()}\n{storage}")
    local.set_up(home)


@contextmanager
def _function(home: Home, servers: Servers) -> Iterator[None]:
    """The host of the site's function, from when the site has keys."""
    site, ended = home.site(BEHIND_A_QUEUE), threading.Event()
    processes: list[subprocess.Popen[str]] = []

    def begin() -> None:
        while not (private_key(site).exists() and (site.keys / PSEUDONYM_KEY).exists()):
            if ended.wait(0.5):
                return
        environment = {
            **os.environ,
            "PYTHONPATH": str(CHECKOUT),
            "HUB_ACCOUNT": "hub",
            "HUB_KEY": KEYS["hub"],
            "HUB_BLOBS": os.environ["EDGE_AI_STACK_HUB__QUEUE__BLOBS"],
            "HUB_QUEUES": os.environ["EDGE_AI_STACK_HUB__QUEUE__QUEUES"],
            "CLOUD_BLOBS": servers.azurite.account("cloud").endpoint,
            "CLOUD_CONTAINER": "uplink",
            "CLOUD_SAS": servers.signature(),
            "EDGE_AI_SITE": BEHIND_A_QUEUE,
            "EDGE_AI_PSEUDONYM_KEY": base64.b64encode((site.keys / PSEUDONYM_KEY).read_bytes()).decode(),
            "EDGE_AI_SIGNING_KEY": private_key(site).read_text(),
        }
        command = [sys.executable, "-m", "edge_ai_assets_tests.integration.functions_host"]
        host = subprocess.Popen(
            command,
            env=environment,
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            process_group=0,
        )
        processes.append(host)
        assert host.stdin
        host.stdin.write("\n")
        host.stdin.flush()

    waiting = threading.Thread(target=begin)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        waiting.join()
        for process in processes:
            os.killpg(process.pid, 9)
            process.wait()


def _rows(cloud: Any) -> int:
    from deltalake import DeltaTable

    options: Mapping[str, str] = {
        "azure_storage_account_name": "cloud",
        "azure_storage_account_key": KEYS["cloud"],
        "azure_storage_endpoint": cloud.endpoint,
        "allow_http": "true",
    }
    return int(DeltaTable("az://lake/global/insights", storage_options=dict(options)).count())


def _end(server: Azurite) -> None:
    server.process.kill()
    server.process.wait(60)


if __name__ == "__main__":
    sys.exit(main())
