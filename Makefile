# filesfs: the file system over the Files API, and its server.
#   make up         everything from nothing to a mount at /mnt/files, until Ctrl-C
#   make test       everything from nothing through the whole test suite
#   make slow       the tests that take minutes each, which make test leaves out
#   make check      style, types, unit and architecture tests: under a minute
#   make bench      installs the peers and measures beside them, into bench/out
#   make audit      known vulnerabilities and licences of what is installed
#   make install    programs into $(PREFIX), units into systemd, mount.filesfs for mount(8)
#   make uninstall  takes all of that out; leaves the data
#   make clean      takes the virtual environment and what tools left behind out of this folder

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
MOUNTPOINT ?= /mnt/files
PREFIX ?= /opt/filesfs
UNITS ?= /etc/systemd/system
HELPER ?= /sbin/mount.filesfs
PYTEST_ARGS ?=
BENCH_ARGS ?=
# Two workers: the suite waits more than it computes. A file's tests share a server and a mount.
PYTEST_WORKERS ?= -n 2 --dist loadfile

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help up test slow check bench audit install uninstall clean setup system

help:
	@sed -n 's/^#   //p' Makefile

setup: .stamp-venv

# What Debian has to give: only what is missing, and apt only then.
system:
	@SUDO='$(SUDO)' bash .ci/system-packages

# Rebuilt when the dependencies change. The source itself is linked, not copied.
.stamp-venv: pyproject.toml constraints.txt | system
	@test -x $(BIN)/python || { python=$$(bash .ci/find-python) || { \
	  echo 'there is no Python 3.11 or newer with venv and headers on PATH' >&2; exit 1; }; \
	  $$python -m venv $(VENV); }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

up: setup
	@$(BIN)/filesfs up $(MOUNTPOINT)

test: setup
	@SUDO='$(SUDO)' bash .ci/system-packages test || echo 'tests of missing tools are skipped' >&2
	@# A folder of this run's own: what an earlier one left behind is no matter of ours.
	folder=$$(mktemp -d /tmp/ft.XXXXXX); trap 'rm -rf --one-file-system '$$folder EXIT; \
	  $(BIN)/pytest $(PYTEST_WORKERS) --basetemp=$$folder/t $(PYTEST_ARGS)

# One after the other, and with what they tell: their seconds are worth reading.
slow: setup
	folder=$$(mktemp -d /tmp/ft.XXXXXX); trap 'rm -rf --one-file-system '$$folder EXIT; \
	  $(BIN)/pytest -q -s -m slow --basetemp=$$folder/t $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit tests/architecture $(PYTEST_ARGS)

# The mount beside its peers, what it costs as things grow, then the server.
bench: setup
	@SUDO='$(SUDO)' bash .ci/system-packages bench
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m bench $(BENCH_ARGS)
	$(BIN)/python -m bench.scaling
	$(BIN)/python -m bench.plots
	$(BIN)/python -m bench.server

audit: setup
	@test -x .audit/bin/pip-audit || { $(BIN)/python -m venv .audit; \
	  .audit/bin/pip install --quiet --disable-pip-version-check pip-audit pip-licenses; }
	.audit/bin/pip-licenses --python=$(BIN)/python --order=license --format=plain
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

install: system
	@bash systemd/install '$(PREFIX)' '$(UNITS)' '$(HELPER)'

uninstall:
	@bash systemd/uninstall '$(PREFIX)' '$(UNITS)' '$(HELPER)'

clean:
	rm -rf $(VENV) .audit .stamp-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
