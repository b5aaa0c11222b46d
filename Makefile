# Images, and the pair in containers of this machine. docs/deploy.md explains the settings.
#
#   make images push TAG=v1 REGISTRY=registry.example.com/speech
#   make up TAG=v1 REGISTRY=registry.example.com/speech
#   make images up BASE_IMAGE=debian:bookworm-slim GPUS=        # a machine without a GPU
#   make smoke bench SERVER=stt.example.com:50051 RECORDINGS=recordings/

# docker or podman.
TOOL ?= docker
TAG ?= latest
REGISTRY ?=
# Instead of the CUDA runtime.
BASE_IMAGE ?=
# Folder for the lists of the images' packages; off: none.
SBOM ?= artifacts/sbom
# all, device=0, ...; empty: none.
GPUS ?= all
CONFIGS ?= $(CURDIR)/configs
MODELS ?= $(CURDIR)/models
SERVER ?= localhost:50051
API_KEY ?=
RECORDINGS ?= samples
CALLERS ?= 1,2,4,8,16
SECONDS ?= 15

PREFIX = $(REGISTRY:%=%/)
BUILD = buildscripts/images --tool $(TOOL) $(if $(filter-out latest,$(TAG)),--tag $(TAG)) $(REGISTRY:%=--registry %) \
  $(BASE_IMAGE:%=--base-image %) --sbom $(SBOM)
# As deploy/compose.yaml; more than DRAIN_TIMEOUT_S (30) to stop.
RUN = $(TOOL) run --detach --network stt $(GPUS:%=--gpus %) --restart unless-stopped \
  --read-only --tmpfs /tmp:mode=1777,size=512m --cap-drop ALL --security-opt no-new-privileges:true \
  --pids-limit 1024 --ulimit core=0 --ulimit nofile=65536 --stop-timeout 45 \
  --volume $(CONFIGS):/config:ro --volume $(MODELS):/models:ro

# $(call wait,NAME): until the container is healthy; its log and a failure if it has to be restarted.
define wait
@until [ "$$($(TOOL) inspect --format '{{.State.Health.Status}}' $(1))" = healthy ]; do \
  [ "$$($(TOOL) inspect --format '{{.RestartCount}} {{.State.Running}}' $(1))" = "0 true" ] || \
    { $(TOOL) logs --tail 20 $(1); echo "make: $(1) does not start; its log is above." >&2; exit 1; }; \
  sleep 1; \
done
endef

.PHONY: help images push up down logs smoke bench

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 10

images: ## build both images, tagged with the commit (or TAG) and as latest
	$(BUILD)

push: ## build them and push them to REGISTRY
	@[ -n "$(REGISTRY)" ] || { echo "make: REGISTRY is empty; expected the registry's prefix: make push REGISTRY=registry.example.com/speech" >&2; exit 1; }
	$(BUILD) --push

up: ## start both containers and wait until they are healthy
	@$(TOOL) network inspect stt >/dev/null 2>&1 || $(TOOL) network create stt
	$(RUN) --name stt-fallback --publish 127.0.0.1:8082:8082 $(PREFIX)stt-fallback:$(TAG)
	$(call wait,stt-fallback)
	$(RUN) --name stt-primary --publish 50051:50051 --publish 8081:8081 $(PREFIX)stt-primary:$(TAG)
	$(call wait,stt-primary)

down: ## drain, stop and remove them, the primary first
	@for name in stt-primary stt-fallback; do \
	  ! $(TOOL) inspect $$name >/dev/null 2>&1 || { $(TOOL) stop $$name && $(TOOL) rm $$name; } || exit 1; \
	done
	@! $(TOOL) network inspect stt >/dev/null 2>&1 || $(TOOL) network rm stt

logs: ## follow the log lines of both
	@trap 'kill 0' INT TERM; $(TOOL) logs --follow --tail 20 stt-fallback & $(TOOL) logs --follow --tail 20 stt-primary & wait

smoke: ## send RECORDINGS to SERVER and check the answers
	@.venv/bin/python tests/smoke_test_stt.py --server $(SERVER) $(API_KEY:%=--api-key %) --audio $(RECORDINGS)

bench: ## measure SERVER with RECORDINGS: throughput and latency by CALLERS
	@.venv/bin/stt bench --server $(SERVER) $(API_KEY:%=--api-key %) --callers $(CALLERS) --seconds $(SECONDS) $(RECORDINGS)
