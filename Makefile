# Every habit is one command. Paths are relative, so that the folder may have any name.

SHELL := bash -o pipefail

# Another Python for a new .venv: make PYTHON=/path/to/python3.12 run
PYTHON ?=
SUPPORTED := 3.11 3.12 3.13 3.14

VENV := .venv/bin/python
PIP := $(VENV) -m pip --disable-pip-version-check
NEWS := awk '!/^Requirement already satisfied/ { print; fflush() }'

# Training allocates and frees hundreds of megabytes a step: keeping them, in large pages, makes it a third faster.
QUICK_ALLOCATION := MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=8589934592 \
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1

.PHONY: run setup packages test test-unit test-slow test-clients coverage hooks lint picture pictures bench bench-rivals train eval-embedded

# What tests start of Debian. A test whose program is missing is skipped, and says so.
PACKAGES := chromium fonts-dejavu-core postgresql nginx-light caddy r-doc-pdf python3-doc

run: .venv/installed
	$(VENV) app.py

setup: .venv/installed-dev

# Debian, Ubuntu: sudo make packages
packages:
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $(PACKAGES)

# Two tests at a time, and a core for each: with more threads than cores they take longer.
test: .venv/installed-dev
	OMP_NUM_THREADS=1 $(VENV) -m pytest -n 2 --dist worksteal

test-slow: .venv/installed-dev
	$(VENV) -m pytest -m slow --timeout 1800

# The tests inside the test process: quick feedback.
test-unit: .venv/installed-dev
	OMP_NUM_THREADS=1 $(VENV) -m pytest -n 2 --dist worksteal tests/unit

# Clients of OpenAI's API, in environments of their own; the last ones are JavaScript, for Node 20 or later.
test-clients: .venv/installed-dev .venv-clients/installed .venv-clients-openai-2/installed \
		tests/clients/node/node_modules/installed
	$(VENV) -m tests.clients

# Slower than `make test`: servers and workers are measured too. docs/contributing.md says what is not counted.
# A part: make coverage TESTS=tests/unit
coverage: .venv/installed-dev
	$(VENV) -m coverage erase
	OMP_NUM_THREADS=1 $(VENV) -m coverage run -m pytest -n 2 --dist worksteal $(TESTS); tests=$$?; \
		$(VENV) -m coverage combine --quiet && $(VENV) -m coverage report && exit $$tests

# git then checks what it commits.
hooks: .venv/installed-dev
	$(VENV) -m pre_commit install

lint: .venv/installed-dev
	$(VENV) -m ruff check .
	$(VENV) -m ruff format --check --quiet .
	$(VENV) -m mypy

# The session that README.md shows, recorded again.
picture: .venv/installed-dev
	$(VENV) -m docs.images.first_session

# The pictures of docs/pages.md, taken again. They need Chromium.
pictures: .venv/installed-dev
	PICTURES=docs/images/pages $(VENV) -m pytest -m slow tests/browser/test_page_pictures.py

# Some twenty minutes. One part alone: .venv/bin/python -m benchmarks decoding (--help names them all).
bench: .venv/installed-dev
	$(VENV) -m benchmarks

bench-rivals: .venv-rivals/installed
	.venv-rivals/bin/python -m benchmarks.rivals
	.venv-rivals/bin/python -m benchmarks.rivals.growth

train: .venv/installed-dev
	$(QUICK_ALLOCATION) $(VENV) -m training.train

eval-embedded: .venv/installed-dev
	$(VENV) -m training.evaluate

# The first supported Python that runs and has venv, the one that all tests pass on before the others: a pyenv shim may run nothing, and Debian has venv in a package.
$(VENV):
	@for python in $(or $(PYTHON),$(SUPPORTED:%=python%)); do \
		if "$$python" -c 'import ensurepip, venv' 2> /dev/null; then \
			echo "Creating .venv with $$python"; exec "$$python" -m venv .venv; \
		fi; \
	done; \
	echo "Hearth needs Python 3.11 to 3.14 with venv. None of these has it: $(or $(PYTHON),$(SUPPORTED:%=python%))" >&2; \
	echo "Install one, for example:" >&2; \
	echo "    sudo apt install python3 python3-venv     (Debian, Ubuntu)" >&2; \
	echo "    brew install python@3.13                  (macOS)" >&2; \
	echo "or run make PYTHON=/path/to/python3.13" >&2; \
	exit 1

.venv/installed: requirements.txt | $(VENV)
	@echo "Installing $< into .venv, once: about 140 packages, 2 to 5 GB. It takes some minutes."
	@$(PIP) install -r $<
	@touch $@

.venv/installed-dev: requirements-dev.txt requirements-documents.txt requirements-mcp.txt requirements-telemetry.txt .venv/installed
	@echo "Installing $< into .venv, once: about 100 more packages."
	@$(PIP) install -r $< | $(NEWS)
	@touch $@

# What Hearth is compared with, above the packages of .venv, which it finds by the .pth file.
.venv-rivals/installed: benchmarks/rivals/requirements.txt .venv/installed-dev
	$(VENV) -m venv .venv-rivals
	$(VENV) -c 'import site; print(site.getsitepackages()[0])' \
		> "$$(.venv-rivals/bin/python -c 'import site; print(site.getsitepackages()[0])')/hearth.pth"
	.venv-rivals/bin/python -m pip --disable-pip-version-check install -r $< | $(NEWS)
	@touch $@

.venv-clients/installed: tests/clients/python/requirements.txt
.venv-clients-openai-2/installed: tests/clients/python_openai_2/requirements.txt
.venv-clients/installed .venv-clients-openai-2/installed: | $(VENV)
	$(VENV) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install -r $< | $(NEWS)
	@touch $@

tests/clients/node/node_modules/installed: tests/clients/node/package-lock.json
	cd tests/clients/node && npm ci --no-audit --no-fund
	@touch $@
