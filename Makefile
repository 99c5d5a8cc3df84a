# What a stranger types. Every target installs what it needs: Debian packages first, then .venv.
#
#   make demo    one image from a registry to a program that runs from the mounted repository
#   make test    every test; builds the test images when first run (a few minutes)
#   make check   what to run before each commit: format, lint, types and the quick tests
#   make bench   how fast, in how much memory
#   make setup   only install
#   make images  only build the test images
#   make format  let ruff rewrite what it can
#   make clean   remove the virtual environment and all caches
#
# JOBS=n runs that many test processes. Not as root, installing and testing go through sudo: the tests make
# device nodes, owners and mounts.

SHELL := /bin/bash
JOBS ?= $(shell nproc)
PYTHON ?= python3
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env)
BIN := .venv/bin
PYTEST = $(SUDO) $(BIN)/python -m pytest -ra --numprocesses=$(JOBS)

BUILD_PACKAGES := python3-venv
RUN_PACKAGES := fuse3 git
TEST_PACKAGES := attr busybox-static containerd debian-archive-keyring debootstrap docker-compose docker-registry \
	docker.io fio fish fuse-overlayfs gcc golang-github-containerd-containerd-dev golang-github-docker-docker-dev \
	golang-github-gotestyourself-gotest.tools-dev golang-github-vbatts-tar-split-dev golang-go libcap2-bin man-db \
	podman runc skopeo squid systemd uidmap umoci util-linux zsh
PACKAGES := $(BUILD_PACKAGES) $(RUN_PACKAGES) $(TEST_PACKAGES)

SOURCES := $(wildcard ducc graphdriver snapshotter volumes tests bench)
QUICK_TESTS := $(wildcard tests/unit tests/properties tests/contracts tests/crash)

.PHONY: demo test check bench setup packages images format clean help

help:
	@sed -n '/^#   make/s/^# //p' Makefile

demo: setup
	$(SUDO) $(BIN)/python -m tests.demo

test: images
	$(PYTEST) --dist=loadfile tests  # what a file converts and mounts, it does once

check: setup
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(PYTEST) $(QUICK_TESTS)

bench: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(SUDO) $(BIN)/python -m bench

images: setup
	$(SUDO) $(BIN)/python -m tests.images build

format: setup
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt | packages
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

packages:
	@missing=$$(for package in $(PACKAGES); do \
	    dpkg-query --show --showformat='$${db:Status-Status}' $$package 2>/dev/null | grep -qx installed \
	        || echo $$package; done); \
	if [ -n "$$missing" ]; then \
	    echo "installing" $$missing; \
	    $(SUDO) apt-get update --quiet \
	    && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends $$missing; \
	fi

clean:
	$(SUDO) rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find $(SOURCES) -name __pycache__ -prune -exec $(SUDO) rm -rf {} +
