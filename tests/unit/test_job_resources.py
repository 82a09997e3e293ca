"""What a tool says that its jobs need on a cluster, and the error where Ray is missing."""

import importlib.machinery
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_core.tools import BaseTool, tool

from server.jobs.ray_cluster import RayCluster, RayMissingError
from server.sdk.jobs import resources
from server.workers.pool import Workers


def declaring(**extras: Any) -> BaseTool:
    @tool(extras={"background": True, **extras})
    def simulate() -> str:
        """Simulate."""
        return "done"

    return simulate


def test_what_a_tool_says() -> None:
    assert resources(declaring()) == {}
    assert resources(declaring(num_gpus=0.5, num_cpus=2, memory=2**30)) == {
        "num_cpus": 2.0,
        "num_gpus": 0.5,
        "memory": 2.0**30,
    }


@pytest.mark.parametrize("amount", ["1", -1, True, 1.5, float("inf"), float("nan")])
def test_what_is_no_amount(amount: object) -> None:
    with pytest.raises(ValueError, match="num_gpus is"):
        resources(declaring(num_gpus=amount))


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""

    class WithoutRay(importlib.machinery.PathFinder):
        @classmethod
        def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
            return None if fullname == "ray" else super().find_spec(fullname, path, target)

    monkeypatch.delitem(sys.modules, "ray", raising=False)
    monkeypatch.setattr(sys, "meta_path", [WithoutRay])
    with pytest.raises(RayMissingError, match=r'pip install "ray==2\.'):
        RayCluster("10.0.0.5:6379", cast(Workers, None), tmp_path, frozenset())
