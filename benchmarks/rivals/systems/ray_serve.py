"""Ray Serve: the author raises a number in `user_config` and deploys the configuration again."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psutil
import requests

from benchmarks.rivals.system import App, Ask, System, free_port, http_asker, prepare, shown
from tests.support.server_process import REPOSITORY

SERVE = ("ray::ServeReplica", "ray::ServeController", "ray::Proxy")
"""How Ray names Serve's processes."""


class RayServe(System):
    """The author deploys the configuration, over the API that `serve deploy` uses."""

    name = "Ray Serve, user_config"
    patience = 10.0
    settling = 30.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()
        self._api = f"http://127.0.0.1:{free_port()}/api/serve/applications/"
        self._deployed = 0
        # Ray keeps sockets there, whose paths must be short.
        self._session = tempfile.mkdtemp(prefix="ray-")
        self._app: App

    def start(self) -> None:
        """See `System`."""
        prepare(self.folder, "ray_serve_app.py")
        cores = len(os.sched_getaffinity(0))
        ports = [f"--port={free_port()}", f"--dashboard-port={self._api.split(':')[2].partition('/')[0]}"]
        command = ["ray", "start", "--head", "--block", "--disable-usage-stats", f"--num-cpus={cores}", *ports]
        # The replica is to find app.py; and Ray would give way to every other process of the machine.
        settings = {"PYTHONPATH": f"{self.folder}{os.pathsep}{REPOSITORY}", "RAY_worker_niceness": "0"}
        self._app = App(self.folder, [*command, f"--temp-dir={self._session}"], **settings)

        def deploy_and_ask() -> tuple[int, int]:
            if self._deployed == 0:
                self._deploy().raise_for_status()
                self._deployed = 1
            return self.asker(60)()

        self._app.wait_until_answered(deploy_and_ask)

    def _deploy(self) -> requests.Response:
        deployment = {"name": "Agent", "user_config": {"edit": self._deployed}}
        application: dict[str, Any] = {
            "name": "agent",
            "route_prefix": "/",
            "import_path": "app:app",
            "deployments": [deployment],
        }
        body: dict[str, Any] = {
            "http_options": {"host": "127.0.0.1", "port": self._port},
            "applications": [application],
        }
        return requests.put(self._api, json=body, timeout=60)

    def apply(self) -> None:
        """See `System`."""
        self._deployed += 1
        self.reported = shown(self._deploy())

    def asker(self, seconds: float) -> Ask:
        """See `System`."""
        return http_asker(f"http://127.0.0.1:{self._port}/ask", seconds)

    def console(self) -> str:
        """What `serve status` shows at the moment."""
        application = requests.get(self._api, timeout=60).json()["applications"]["agent"]
        deployment = application["deployments"]["Agent"]
        return (
            f"{application['status']} {application['message']}\nAgent: {deployment['status']} {deployment['message']}"
        )

    def processes(self) -> list[psutil.Process]:
        """Those of Serve: replica, controller, proxy; not those of Ray itself."""
        return [process for process in self._app.processes() if process.cmdline()[0].startswith(SERVE)]

    def stop(self) -> None:
        """See `System`."""
        self._app.stop()
        shutil.rmtree(self._session, ignore_errors=True)
