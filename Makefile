# `make book` and `make test` install what they need first; `make help` lists
# the rest. You need Python 3.11 to 3.15, and make.

PYTHON ?= python3
# Which build of PyTorch: `cpu`, or one for a graphics card, such as `cu130`,
# from PyTorch's own index; or `pypi`, the one that pip finds by itself, which
# on Linux includes gigabytes of CUDA.
TORCH ?= $(shell [ "$$(uname)" = Linux ] && ! command -v nvidia-smi \
	>/dev/null && echo cpu || echo pypi)
VENV := .venv
BIN := $(VENV)/bin
READER := $(VENV)/.reader
TESTER := $(VENV)/.tester
RIVALS := benchmarks/.venv/.rivals
PAGES := benchmarks/_live/.venv/.pages
READERS := interop/.venv/.readers

.DEFAULT_GOAL := help
.PHONY: help setup book pdf lab class sync test sanitize check bench live interop clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1@/p' $(MAKEFILE_LIST) | \
		awk -F@ '{ printf "make %-8s %s\n", $$1, $$2 }'

setup: $(READER) ## Create .venv with everything that a reader needs

book: $(READER) ## Build the book and print its location
	@echo "Building the book ..."
	@rm -rf _build
	@$(BIN)/jupyter-book build . --quiet -W -n --keep-going
	@echo "The book is built: open $(CURDIR)/_build/html/index.html"

# A browser prints one page that contains all pages. That page must be in the
# root of the build, because its image paths are relative to the root.
pdf: $(READER) ## Print the book to a PDF file, with Chromium or Chrome
	@browser=$$(command -v chromium || command -v google-chrome) || \
		{ echo "make pdf needs chromium or google-chrome" >&2; exit 1; }; \
	echo "Printing the book ..."; \
	$(BIN)/jupyter-book build . --quiet --builder singlehtml && \
	cp _build/singlehtml/book/intro.html _build/singlehtml/whole.html && \
	"$$browser" --headless --no-sandbox --disable-gpu --no-first-run \
		--disable-background-networking --no-pdf-header-footer \
		--virtual-time-budget=60000 --log-level=3 \
		--print-to-pdf=_build/gpt2.pdf \
		"file://$(CURDIR)/_build/singlehtml/whole.html" 2>/dev/null && \
	echo "The book is printed: $(CURDIR)/_build/gpt2.pdf"

lab: $(READER) ## Open the notebooks in JupyterLab, to work in them
	@$(BIN)/python book/editions.py
	$(BIN)/jupyter lab notebooks/01-what-gpt2-does.ipynb

class: $(READER) ## Make the notebooks for a class, without solutions
	@$(BIN)/python book/editions.py --class

sync: $(READER) ## Copy the package's source into the notebooks, and run them
	@$(BIN)/python book/sync.py

test: $(TESTER) ## Run every test and every cell of the notebooks
	@echo "Running the tests and the notebooks ..."
	@$(BIN)/python -m pytest -n auto --dist loadgroup -rs \
		--nbval --nbval-current-env --nbval-cell-timeout=600

sanitize: $(TESTER) ## Run the C code under the compiler's sanitizers
	@$(BIN)/python tests/sanitized.py 0 200

check: $(TESTER) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(RIVALS) ## Measure speed beside other engines; half an hour
	@benchmarks/.venv/bin/python benchmarks/run.py

live: $(PAGES) ## Measure the model in the page beside onnxruntime-web
	@benchmarks/_live/.venv/bin/python benchmarks/live.py

interop: $(READERS) $(TESTER) ## Compare what other programs make of the same files
	@interop/.venv/bin/python interop/run.py
	@interop/.venv/bin/python interop/sampling.py
	@interop/.venv/bin/python interop/letters.py
	@$(BIN)/python interop/notebooks.py

# Not notebooks/ and class/, where somebody may have worked.
clean: ## Remove what make has created, except notebooks to work in
	rm -rf $(VENV) benchmarks/.venv benchmarks/_checkpoint benchmarks/_live interop/.venv _build *.egg-info .hypothesis .pytest_cache .mypy_cache .ruff_cache

# PyTorch comes first: whatever needs it later finds it there. Nothing else is
# taken from PyTorch's index.
define install_torch
	@[ $(TORCH) = pypi ] || $(1)/python -m pip install --quiet --no-deps \
		--retries 1 --timeout 30 -c requirements.txt torch \
		--index-url https://download.pytorch.org/whl/$(TORCH) || \
		echo "PyTorch's index has no such build, or cannot be reached; using pip's index instead"
endef

$(READER): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit( \
		not (3, 11) <= sys.version_info[:2] <= (3, 15) and \
		"Python 3.11 to 3.15 is required, but %s is %s; try make PYTHON=python3.12" \
		% (sys.executable, sys.version.split()[0]))'
	@echo "Setting up $(VENV); this takes a few minutes ..."
	$(PYTHON) -m venv $(VENV)
	$(call install_torch,$(BIN))
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(TESTER): requirements-tests.txt $(READER)
	@echo "Installing the test requirements ..."
	$(BIN)/python -m pip install --quiet -r requirements-tests.txt \
		-c requirements.txt
	@touch $@

$(RIVALS): benchmarks/requirements.txt requirements.txt
	@echo "Setting up the other engines; compiling llama.cpp takes about" \
		"ten minutes ..."
	$(PYTHON) -m venv benchmarks/.venv
	$(call install_torch,benchmarks/.venv/bin)
	CMAKE_ARGS="-DGGML_NATIVE=ON" benchmarks/.venv/bin/python -m pip install \
		--quiet -r benchmarks/requirements.txt -c requirements.txt
	benchmarks/.venv/bin/python -m pip install --quiet \
		-c requirements.txt --editable .
	@touch $@

$(PAGES): benchmarks/live_requirements.txt requirements.txt
	$(PYTHON) -m venv benchmarks/_live/.venv
	$(call install_torch,benchmarks/_live/.venv/bin)
	benchmarks/_live/.venv/bin/python -m pip install --quiet \
		-r benchmarks/live_requirements.txt -c requirements.txt
	benchmarks/_live/.venv/bin/python -m pip install --quiet \
		-c requirements.txt --editable .
	@touch $@

# llama.cpp's converter is in the source of llama-cpp-python, not in its wheel.
$(READERS): interop/requirements.txt requirements.txt
	@echo "Setting up the other readers; compiling llama.cpp takes about" \
		"ten minutes ..."
	$(PYTHON) -m venv --clear interop/.venv
	$(call install_torch,interop/.venv/bin)
	interop/.venv/bin/python -m pip download --quiet --no-deps \
		--no-binary llama-cpp-python --dest interop/.venv \
		$$(grep -o '^llama-cpp-python==[0-9.]*' interop/requirements.txt)
	mkdir -p interop/.venv/source
	tar -xzf interop/.venv/llama_cpp_python-*.tar.gz \
		-C interop/.venv/source --strip-components=1
	CMAKE_ARGS="-DGGML_NATIVE=ON" interop/.venv/bin/python -m pip install \
		--quiet -r interop/requirements.txt -c requirements.txt
	interop/.venv/bin/python -m pip install --quiet \
		-c requirements.txt --editable .
	@touch $@
