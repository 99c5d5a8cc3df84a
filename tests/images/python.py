"""Debian's Python on the base."""

from tests.images.debian import install
from tests.images.workshop import Workshop

PARENT = "base"


def build(workshop: Workshop) -> None:
    install(workshop.root, "python3")
    workshop.seal("apt-get install python3")
    workshop.configure(cmd="python3", workingdir="/root", label="org.example.purpose=ducc's tests")
