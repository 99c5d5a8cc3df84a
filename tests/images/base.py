"""Debian 12, and a layer of oddities on it."""

from pathlib import Path

from tests.images.debian import bootstrap
from tests.images.oddities import NASTY_ENVIRONMENT, oddities, to_be_pruned
from tests.images.workshop import Workshop

PARENT = None
SOURCES = (Path(__file__).with_name("oddities.py"),)


def build(workshop: Workshop) -> None:
    bootstrap(workshop.root, include=("iputils-ping",))  # ping brings a file capability
    workshop.seal("debootstrap")
    workshop.add("oddities", *oddities())
    workshop.add("to be pruned", *to_be_pruned())
    workshop.configure(cmd="/bin/bash")
    workshop.configure(env="PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    for variable in NASTY_ENVIRONMENT:
        workshop.configure(env=variable)
