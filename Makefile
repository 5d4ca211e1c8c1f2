# dunnage: `make help` lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:

PREFIX  ?= /usr/local
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

# Packages and test binaries run side by side; more than the cores would only
# make the timing tests jitter.
TEST_PARALLEL ?= 2
TEST_TIMEOUT  ?= 30m
# Which tests `make soak` plays.
SOAK ?= .
# What `make test` looks at; narrow it with PKG=./netns/...
PKG ?= ./...

STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

# Debian packages. This is the one list: each target names its share of it,
# and `debs` installs what is missing.
DEBS_RUN   := ca-certificates containerd curl iproute2 iptables procps runc util-linux
DEBS_IMAGE := mmdebstrap
DEBS_TEST  := $(DEBS_RUN) $(DEBS_IMAGE) conntrack docker-registry e2fsprogs hping3 jq libdevmapper1.02.1 nftables prometheus skopeo socat strace
DEBS_PEERS := docker.io docker-compose podman containernetworking-plugins

GO_FILES := $(shell git ls-files --cached --others --exclude-standard '*.go' go.mod go.sum 2>/dev/null)

.PHONY: help
help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# --- building ---------------------------------------------------------------

# What nothing here uses, and what would be in the agent's memory: grpc's pages of
# traces, and urfave/cli's manual pages.
GO_TAGS  := grpcnotrace,urfave_cli_no_docs
GO_BUILD = CGO_ENABLED=0 go build -trimpath -tags $(GO_TAGS) -ldflags '-s -w -X main.version=$(VERSION)'

.PHONY: build
build: bin/dunnage bin/dunnage-log bin/dunnage-init ## Build the programs into bin/.

bin/dunnage: $(GO_FILES) | go
	$(GO_BUILD) -o $@ ./cmd/dunnage

bin/dunnage-log: $(GO_FILES) | go
	$(GO_BUILD) -o $@ ./cmd/dunnage-log

bin/dunnage-init: $(GO_FILES) | go
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ ./cmd/dunnage-init

.PHONY: install
install: build ## Install programs, unit file, dashboard, alerts and manual under PREFIX (and DESTDIR).
	install -D -m 0755 bin/dunnage $(DESTDIR)$(PREFIX)/bin/dunnage
	install -D -m 0755 bin/dunnage-log $(DESTDIR)$(PREFIX)/bin/dunnage-log
	install -D -m 0755 bin/dunnage-init $(DESTDIR)$(PREFIX)/bin/dunnage-init
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@PREFIX@|$(PREFIX)|g' packaging/dunnage.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/dunnage.service
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/dunnage/prometheus packaging/prometheus/dunnage.rules.yml
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/dunnage/grafana packaging/grafana/dunnage.json
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/dunnage README.md LICENSE
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/dunnage/docs docs/*.md
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/dunnage/docs/adr docs/adr/*.md

.PHONY: clean
clean: ## Remove everything that was built.
	rm -rf bin build

# --- checking ---------------------------------------------------------------

.PHONY: test
test: root go debs-test build/docker/usr/sbin/dockerd ## Run everything, as root; installs what it needs.
	@mkdir -p build/bin
	@go build -o build/bin/testsum ./internal/testsum
	DUNNAGE_ROOT_TESTS=1 build/bin/testsum -check 'go vet $(PKG)' -- \
		go test -json -count=1 -p $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) $(PKG)

.PHONY: soak
soak: root go debs-test build/docker/usr/sbin/dockerd ## Run the tests that measure whole, for hours; writes build/soak.json (SOAK=REGEXP picks some).
	go run ./test/soak -run '$(SOAK)' -o build/soak.json

.PHONY: soak-disk
soak-disk: root go debs-test ## Redeploy 300 distinct images within a disk budget; draws docs/disk.png.
	DUNNAGE_DISK_PLOT=$(CURDIR)/docs/disk.png go run ./test/soak -run '^TestDiskSoak$$' -o build/soak-disk.json

.PHONY: lint
lint: go ## gofmt, go vet, staticcheck and golangci-lint.
	@unformatted=$$(gofmt -l $(filter %.go,$(GO_FILES))); \
		if [ -n "$$unformatted" ]; then echo "gofmt these: $$unformatted" >&2; exit 1; fi
	go vet ./...
	go run $(STATICCHECK) ./...
	go run $(GOLANGCI_LINT) run ./...

# --- trying it --------------------------------------------------------------

TOOLS := build/bin/dunnage-load build/bin/dunnage-images build/bin/dunnage-demo build/bin/dunnage-bench

.PHONY: tools
tools: $(TOOLS)

build/bin/dunnage-load: $(GO_FILES) | go
	CGO_ENABLED=0 go build -o $@ ./test/load/dunnage-load

build/bin/dunnage-images: $(GO_FILES) | go
	CGO_ENABLED=0 go build -o $@ ./test/images/dunnage-images

build/bin/dunnage-demo: $(GO_FILES) | go
	CGO_ENABLED=0 go build -o $@ ./test/demo

build/bin/dunnage-bench: $(GO_FILES) | go
	CGO_ENABLED=0 go build -o $@ ./test/bench

build/bin/dunnage-leakscan: $(GO_FILES) | go
	CGO_ENABLED=0 go build -o $@ ./test/leak/dunnage-leakscan

.PHONY: images
images: go build/bin/dunnage-images ## Build the images of examples/hello into build/images.
	build/bin/dunnage-images hello

.PHONY: stack-images
stack-images: root go debs-image build/bin/dunnage-images ## Build the images of examples/stack too (from Debian packages).
	build/bin/dunnage-images hello stack

.PHONY: demo
demo: root go debs-run build images tools ## A redeploy under load, in network namespaces of its own.
	build/bin/dunnage-demo up

.PHONY: demo-stop
demo-stop: root build/bin/dunnage-demo ## Remove all that the demo made.
	build/bin/dunnage-demo down

.PHONY: bench
bench: root go debs-run build images tools ## Measure ourselves beside Docker and podman (BENCH_PEERS=1 installs them).
ifeq ($(BENCH_PEERS),1)
	@$(MAKE) --no-print-directory debs-peers
endif
	build/bin/dunnage-bench

.PHONY: leakscan
leakscan: root go debs-test debs-peers build build/bin/dunnage-leakscan ## Look for secrets where they don't belong, beside Docker and podman; writes the table of docs/secrets.md.
	build/bin/dunnage-leakscan

# --- what the targets need --------------------------------------------------

.PHONY: root go
root:
	@[ "$$(id -u)" = 0 ] || { echo "this target needs root: it makes namespaces and containers" >&2; exit 1; }

go:
	@command -v go >/dev/null || { echo "Go isn't on PATH. It takes the version that go.mod names or a newer one (Debian's golang package is too old): https://go.dev/dl" >&2; exit 1; }

# $(call install,PACKAGES) installs those that are missing. The package lists
# are fetched only when an install fails without.
define install
@missing=(); for p in $(1); do \
	[ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null || true)" = installed ] || missing+=($$p); done; \
if [ $${#missing[@]} -gt 0 ]; then \
	command -v apt-get >/dev/null || { echo "these are missing and there is no apt-get to install them: $${missing[*]}" >&2; exit 1; }; \
	echo "installing $${missing[*]}"; export DEBIAN_FRONTEND=noninteractive; \
	apt-get install -y -q --no-install-recommends "$${missing[@]}" >/dev/null 2>&1 || \
	{ apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends "$${missing[@]}" >/dev/null; }; \
fi
endef

.PHONY: debs-run debs-image debs-test debs-peers
debs-run: root
	$(call install,$(DEBS_RUN))
debs-image: root
	$(call install,$(DEBS_IMAGE))
debs-test: root
	$(call install,$(DEBS_TEST))
debs-peers: root
	$(call install,$(DEBS_PEERS))

# Docker for a test, unpacked and not installed: that would start its daemon, and
# have it lay its rules on this host. The client is a package of its own from
# Debian 13 on.
build/docker/usr/sbin/dockerd:
	@rm -rf build/docker && mkdir -p build/docker
	@cd build/docker; get() { apt-get download -q docker.io $$(apt-cache pkgnames docker-cli | grep -x docker-cli) >/dev/null 2>&1; }; \
		get || { apt-get update -q >/dev/null && get; } || { echo "docker.io can't be downloaded" >&2; exit 1; }
	@cd build/docker; for deb in *.deb; do dpkg-deb -x $$deb .; rm $$deb; done
	@touch $@
