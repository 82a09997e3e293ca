# Every habit is one command. Paths are relative, so that the folder may have any name.

PYTHON := .venv/bin/python
PIP := $(PYTHON) -m pip --disable-pip-version-check --quiet

# Training allocates and frees hundreds of megabytes a step: keeping them, in large pages, makes it a third faster.
QUICK_ALLOCATION := MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=8589934592 \
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: run setup test test-slow lint bench bench-rivals train eval-embedded

run: .venv/installed
	$(PYTHON) app.py

setup: .venv/installed-dev

# Two tests at a time, and a core for each: with more threads than cores they take longer.
test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist worksteal

test-slow: .venv/installed-dev
	$(PYTHON) -m pytest -m slow --timeout 1800

lint: .venv/installed-dev
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check --quiet .
	$(PYTHON) -m mypy

# Some twenty minutes. One part alone: .venv/bin/python -m benchmarks decoding (--help names them all).
bench: .venv/installed-dev
	$(PYTHON) -m benchmarks

bench-rivals: .venv-rivals/installed
	.venv-rivals/bin/python -m benchmarks.rivals
	.venv-rivals/bin/python -m benchmarks.rivals.growth

train: .venv/installed-dev
	$(QUICK_ALLOCATION) $(PYTHON) -m server.embedded.train

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

# What Hearth is compared with, above the packages of .venv, which it finds by the .pth file.
.venv-rivals/installed: benchmarks/rivals/requirements.txt .venv/installed-dev
	python3.11 -m venv .venv-rivals
	$(PYTHON) -c 'import site; print(site.getsitepackages()[0])' > .venv-rivals/lib/python3.11/site-packages/hearth.pth
	.venv-rivals/bin/python -m pip --disable-pip-version-check --quiet install -r benchmarks/rivals/requirements.txt
	touch $@
