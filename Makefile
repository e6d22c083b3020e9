# SPDX-License-Identifier: Apache-2.0
#
# "make help" lists the targets. Everything here also runs by hand; the longer
# steps are the scripts in hack/.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# sudo drops the usual place of the Go toolchain and, for some, of nft.
export PATH := $(CURDIR)/.tools:$(PATH):/usr/local/go/bin:/usr/sbin:/sbin

# sudo make runs git as another user than the checkout's owner.
GIT     := git -c safe.directory='*'
VERSION ?= $(shell $(GIT) describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X github.com/c8s-dev/c8s/cmd/c8s/internal/version.Version=$(VERSION)

# How long each fuzz target and chaos run, and what go test is told in addition.
FUZZTIME  ?= 20s
CHAOSTIME ?= 20m
TESTFLAGS ?=

# Rows of the matrix of kernels, all if empty, and further flags
# (go run ./test/kernels -h).
KERNELS     ?=
KERNELFLAGS ?=

# The version is stamped above; asking git again would fail under sudo.
export GOFLAGS := -buildvcs=false

.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the static binaries bin/c8s, bin/c8s-runtime, bin/c8s-runtime-alone and bin/c8s-cni
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/c8s ./cmd/c8s-runtime ./cmd/c8s-runtime-alone ./cmd/c8s-cni

.PHONY: build-pkcs11
build-pkcs11: ## build bin/c8s-pkcs11, which signs with keys on tokens (needs a C compiler)
	CGO_ENABLED=1 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/c8s-pkcs11 ./cmd/c8s

.PHONY: image
image: build ## build bin/c8s-image.tar, the container image, and print its digests
	go run ./images/build -version '$(VERSION)' -ref 'c8s.dev/c8s:$(VERSION)'

.PHONY: demo
demo: build ## show the whole system on this machine (root)
	@hack/need-root "make demo"
	@hack/deps demo
	bin/c8s demo

.PHONY: test
test: ## every check and every test, with the race detector (root)
	@hack/need-root "make test"
	@hack/deps test
	@$(MAKE) --no-print-directory check-generated lint unit privileged

.PHONY: test-unit
test-unit: unit ## only the tests that need no root

.PHONY: unit
unit: etcd pebble
	go test -race $(TESTFLAGS) $$(hack/packages unit)
	CGO_ENABLED=0 go test $(TESTFLAGS) ./cmd/c8s/internal/operatorkey # the static binary's half

.PHONY: privileged
privileged: etcd pebble ## only the tests that need root
	@hack/need-root "make privileged"
	hack/test-privileged privileged $(TESTFLAGS)

.PHONY: test-e2e
test-e2e: stack ## the tests with real containerd and Kubernetes (root)
	@hack/need-root "make test-e2e"
	hack/test-privileged e2e $(TESTFLAGS)

.PHONY: test-kernels
test-kernels: ## the kernel's side on Debian's 6.1, 6.12 and newest kernels, emulated (KERNELS=6.1,newest picks)
	@hack/deps kernels
	go run ./test/kernels -kernels '$(KERNELS)' $(KERNELFLAGS)

.PHONY: bench
bench: build etcd ## Go benchmarks, then the ratios of test/bench (root)
	@hack/need-root "make bench"
	@hack/deps demo
	@hack/deps bench
	go test -run '^$$' -bench . -benchmem $$(hack/packages benchmarks)
	go run ./test/bench

.PHONY: chaos
chaos: ## break a cluster at random for CHAOSTIME (root)
	@hack/need-root "make chaos"
	@hack/deps test
	C8S_REQUIRE_PRIVILEGED=1 go test -race -count=1 -timeout 0 -v ./test/chaos -run TestChaos -duration $(CHAOSTIME)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME
	FUZZTIME=$(FUZZTIME) hack/fuzz

.PHONY: generate
generate: tools ## regenerate the eBPF objects and protobuf code
	@hack/deps generate
	hack/generate

.PHONY: check-generated
check-generated: tools ## fail if a committed generated file is not what its source gives
	@hack/deps generate
	hack/generate --check

.PHONY: lint
lint: tools ## formatting, vet, staticcheck, licence lines, known vulnerabilities
	hack/lint

.PHONY: tools
tools: .tools/.stamp

.tools/.stamp: hack/tools/go.mod hack/tools/go.sum
	mkdir -p .tools
	GOBIN='$(CURDIR)/.tools' CGO_ENABLED=0 go -C hack/tools install tool
	touch $@

.PHONY: etcd
etcd: ## build the etcd that tests run against
	@hack/stack/build etcd
	@mkdir -p .tools && ln -sf "$$(hack/stack/build --print etcd)/etcd" .tools/etcd

.PHONY: pebble
pebble: ## build the ACME server that tests run against
	@hack/stack/build pebble

.PHONY: stack
stack: ## build containerd, runc, CNI plugins, etcd, Kubernetes and helm, once
	@hack/deps e2e
	hack/stack/build all

.PHONY: deps
deps: ## check, and as root install, the Debian packages of all targets
	@hack/deps test
	@hack/deps e2e
	@hack/deps kernels

.PHONY: clean
clean: ## remove what the targets built here
	rm -rf bin .tools coverage.out
