# Every target is one call of a script under hack/; each of those has --help.
.DEFAULT_GOAL := help
.PHONY: help deps build check-build image chart generate libkrun node install-node demo test unit lint fuzz check-node e2e bench conformance cluster cluster-test cluster-down clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## Debian packages, and the cached parts of the node
	hack/deps

build: ## out/dist: shim, runner, agent, krunctl, libkrunfw
	hack/build

check-build: ## the image built twice in different places, and compared
	@hack/check-build

image: ## out/image.tar: the installer's container image, from out/dist
	hack/image

chart: ## checks charts/krunpod and deploy/ with Helm 3 and 4
	hack/chart

generate: ## the generated code of agent/api
	hack/generate

libkrun: ## out/lib/libkrunlib.a, from the system or the pinned crate
	hack/libkrun

node: ## starts the test node (NODE=2: the second)
	hack/node up

install-node: build ## builds, and installs it with containerd on the node
	hack/prepare-node

demo: ## shows a pod in a microVM on the node, and checks what it shows
	hack/on-node demo

test: ## lint, fast tests, tests of the node, the demo, end-to-end tests, conformance, tests of a cluster
	@hack/test

unit: ## lint and the fast tests
	@hack/unit

lint: ## gofmt, vet, staticcheck, shellcheck
	@hack/lint

fuzz: ## every fuzz target for FUZZTIME (10s); hack/fuzz REGEXP: some
	@hack/fuzz

check-node: ## hack/node, where the node is this machine itself, and a QEMU that freezes
	@hack/check-node

e2e: ## the end-to-end tests on two nodes (hack/e2e -run REGEXP: some)
	@hack/e2e

bench: ## start times and memory against runc
	hack/on-node bench

conformance: ## critest against krun with each sandboxer, and runc to compare
	hack/conformance

cluster: ## a Kubernetes cluster with krun pods (hack/cluster kubectl get nodes)
	hack/cluster up

cluster-test: ## tests pods through kubectl on a cluster of two nodes
	@hack/cluster-test

cluster-down: ## ends it
	hack/cluster down

clean: ## removes out/ and ends the nodes; the cache stays
	-hack/node -n 1 down
	-hack/node -n 2 down
	rm -rf out
