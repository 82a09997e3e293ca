"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

PACKAGES = ("torch", "transformers", "guidance", "llguidance", "waitress")


def describe() -> str:
    """Processor, memory, GPU and versions, in one line."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    cores, memory = len(os.sched_getaffinity(0)), psutil.virtual_memory().total / 2**30
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    system = f"{platform.system()}, Python {platform.python_version()}, {packages}"
    return f"{_processor()}, {cores} cores, {memory:.0f} GiB, {gpu}; {system}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
