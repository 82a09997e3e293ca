# Every habit is one command. Paths are relative, so that the folder may have any name.

PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet

.PHONY: run setup test lint bench train eval-embedded

run: .venv/installed
	$(PYTHON) app.py

setup: .venv/installed-dev

test: .venv/installed-dev
	$(PYTHON) -m pytest

lint: .venv/installed-dev
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy

bench: .venv/installed-dev
	$(PYTHON) -m benchmarks

train: .venv/installed-dev
	$(PYTHON) -m server.embedded.train

eval-embedded: .venv/installed-dev
	$(PYTHON) -m server.embedded.evaluate

$(PYTHON):
	python3.11 -m venv .venv

.venv/installed: requirements.txt | $(PYTHON)
	$(PIP) install -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(PIP) install -r requirements-dev.txt
	touch $@
