"""Versions and machine: what decides a number, and how fast it came."""

import contextlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tapetum import __version__

PACKAGES = ("torch", "lightning", "timm", "numpy", "scipy", "opencv-python-headless", "pillow")


def read_versions() -> dict[str, str]:
    """Name to version of Tapetum, Python and the packages that compute; a package that is not installed is left out."""
    versions = {"tapetum": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # e.g. another build of OpenCV
            versions[package] = version(package)
    return versions


def describe_processor() -> str:
    """The name of this machine's CPU."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
