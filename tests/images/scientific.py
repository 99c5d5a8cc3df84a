"""A compiler and a scientific stack from PyPI: the big one, above 20 000 files and 700 MB."""

import platform
import sys

from tests.images.debian import install, quietly
from tests.images.workshop import Workshop

PARENT = "python"
PACKAGES = ("numpy", "scipy", "pandas", "matplotlib", "sympy", "scikit-learn")
PYTHON = "3.11"  # Debian 12's
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
PLATFORMS = ("manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28")


def build(workshop: Workshop) -> None:
    install(workshop.root, "gcc", "libc6-dev")
    workshop.seal("apt-get install gcc")
    pip_install(workshop)
    workshop.seal("pip install")


def pip_install(workshop: Workshop) -> None:
    """Install wheels from outside, so that this machine's pip configuration holds; compile from inside."""
    wheels = [f"--platform={platform_}_{platform.machine()}" for platform_ in PLATFORMS]
    chosen = ["--only-binary=:all:", f"--python-version={PYTHON}", *wheels]
    target = ["--no-compile", f"--target={workshop.root / SITE}"]
    quietly(sys.executable, "-m", "pip", "install", *chosen, *target, *PACKAGES)
    quietly("chroot", str(workshop.root), "python3", "-m", "compileall", "-q", "-j2", f"/{SITE}")
