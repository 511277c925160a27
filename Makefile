# Emberbox from a clone: `make help`. The heavy lifting is cargo's, guest/build's and pytest's; this file says in which order.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS += --no-builtin-rules --no-print-directory

export CARGO_TARGET_DIR ?= $(CURDIR)/target
export EMBERBOX_BASE ?= $(CURDIR)/target/base
export EMBERBOX_BIN ?= $(CARGO_TARGET_DIR)/release/emberbox
STATIC := x86_64-unknown-linux-gnu
STATIC_DIR := $(CARGO_TARGET_DIR)/$(STATIC)/release
VENV := $(CURDIR)/target/venv
# MicroVMs need root; building does not.
ROOT := $(if $(filter 0,$(shell id -u)),,sudo env "PATH=$$PATH" "CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)" "EMBERBOX_BASE=$(EMBERBOX_BASE)" "EMBERBOX_BIN=$(EMBERBOX_BIN)")
SUITE ?= all
say = printf '\n\033[1m== %s\033[0m\n' $(1)

.PHONY: help install-deps build daemon guest-programs base venv demo test bench lint clean

help: ## Show this.
	@echo "Emberbox: self-hosted AWS Lambda MicroVMs"
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	echo "  suites of make test:  all" tests/suites/* | sed 's|tests/suites/||g'
	echo "  suites of make bench:" bench/*.py | sed -E 's|bench/([^ ]*).py|\1|g'

install-deps: ## Install what this machine lacks (Debian, Ubuntu); says what before it does.
	@scripts/install-deps

build: install-deps daemon base ## Build the daemon, the programs of the guest, and the managed base (in target/).

daemon:
	@$(call say,"building the daemon: a few minutes the first time")
	cargo build --release --locked -p emberbox -p emberbox-monitor -p xtask

guest-programs:
	@$(call say,"building what runs in guests: statically linked")
	CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static" \
		cargo build --release --locked --target $(STATIC) -p emberbox-agent -p emberbox-hostile -p emberbox-probe

base: guest-programs
	@$(call say,"making the managed base from Debian packages: half a minute to two the first time")
	$(ROOT) guest/build --agent $(STATIC_DIR)/emberbox-agent --out $(EMBERBOX_BASE) --cache $(CURDIR)/target/base-cache

venv: $(VENV)/.installed

$(VENV)/.installed: tests/requirements.txt
	@$(call say,"installing the stock AWS clients and pytest into target/venv")
	scripts/python-venv $(VENV) tests/requirements.txt
	touch $@

demo: build venv ## Walk the story with the stock AWS CLI: build an image, run, talk, suspend, wake. Cleans up.
	@$(ROOT) $(VENV)/bin/python scripts/demo

test: build venv ## Test everything, or one suite: make test SUITE=lifecycle.
	@tests/run $(SUITE)

bench: build venv ## Measure, print a table, write target/bench/<suite>.json: make bench SUITE=launch.
	@suite=$(if $(filter all,$(SUITE)),launch,$(SUITE))
	[[ -f bench/$$suite.py ]] || { echo "no benchmark $$suite: $$(ls bench)" >&2; exit 2; }
	$(ROOT) env PYTHONPATH=tests $(VENV)/bin/python bench/$$suite.py

lint: ## Check the format, the lints (warnings denied), the dependencies' licences and sources, and where unsafe code is.
	@cargo xtask lint

clean: ## Remove everything built but the package caches of cargo.
	@rm -rf target
