"""Versions of all that decides a number."""

import contextlib
import platform
from importlib.metadata import PackageNotFoundError, version

from tapetum import __version__

PACKAGES = ("torch", "lightning", "timm", "numpy", "scipy", "opencv-python-headless", "pillow")


def read_versions() -> dict[str, str]:
    """Name to version of Tapetum, Python and the packages that compute; a package that is not installed is left out."""
    versions = {"tapetum": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # e.g. another build of OpenCV
            versions[package] = version(package)
    return versions
