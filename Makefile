# Short names for the commands that the README and CONTRIBUTING give.
.PHONY: help test quick unit lint rehearse

help:
	@echo 'make test | quick | unit | lint | rehearse'
	@./tests/run help

test quick unit lint: COMMAND = ./tests/run $(filter-out test,$@)
test quick unit lint:
	$(COMMAND)

rehearse:
	python3 tools/bake.py rehearse
