# Targets of the Makefile that go with this folder. PORT=8000 is where the simulator listens.
PORT ?= 8000
export PORT

##@ Simulator
run: $(STAMP)  ## start the simulator with OpenTelemetry on PORT (exports when OTEL_EXPORTER_OTLP_ENDPOINT is set)
	PATH="$(CURDIR)/$(VENV):$$PATH" app/run.sh

traffic: $(STAMP)  ## send a load to it for RUN_TIME (60s), with live figures and the time of the next peak
	PATH="$(CURDIR)/$(VENV):$$PATH" app/traffic.sh

.PHONY: run traffic
