# make setup | demo | demo-score | test | test-slow | test-nightly | bench        PYTHON=/path/to/python3.11 where python3.11 and python3 are not one

export PYTHON
IN_ENV = PATH="$(CURDIR)/.venv/bin:$$PATH"
DEMO = build/demo
TESTS = not slow and not nightly
PARALLEL = -n 2 --dist loadscope --no-loadscope-reorder --max-worker-restart 0 --durations 20

.PHONY: setup setup-dev demo demo-score test test-slow test-nightly bench

setup:
	@requirements/setup.sh

setup-dev:
	@requirements/setup.sh dev

# Train DenseNet-121 on synthetic chest X-rays, on embedded local Spark.
demo: setup
	@$(IN_ENV) && { [ -d $(DEMO)/xrays ] || insitu data xrays $(DEMO)/xrays --images 5000 --size 96 --seed 1; }
	@rm -rf $(DEMO)/model
	@$(IN_ENV) spark-submit jobs/train_cnn.py --recipe conf/recipes/demo.yaml --data $(DEMO)/xrays --output $(DEMO)/model
	@$(IN_ENV) insitu show $(DEMO)/model

# Quantise that model and score three deliveries; the third is of another scanner, which raises an alarm.
demo-score: setup
	@[ -d $(DEMO)/model ] || $(MAKE) demo
	@rm -rf $(DEMO)/quantised $(DEMO)/incoming $(DEMO)/scores
	@$(IN_ENV) && spark-submit jobs/quantize.py --model $(DEMO)/model --data $(DEMO)/xrays --output $(DEMO)/quantised
	@$(IN_ENV) && for delivery in "1 96" "2 96" "3 128"; do set -- $$delivery; \
	  insitu data xrays $(DEMO)/incoming/delivery=$$1 --images 500 --size $$2 --seed 10$$1 && \
	  spark-submit jobs/score_batch.py --model $(DEMO)/quantised --data $(DEMO)/incoming --output $(DEMO)/scores --send-to-label 20 || exit; done
	@echo "the history in pictures: $(DEMO)/scores/monitoring.html"

test: setup-dev
	@$(IN_ENV) && ruff check && ruff format --check && mypy && lint-imports && pytest $(PARALLEL) -m "$(TESTS)"

# Tests that take long together: resumed runs, full disks, killed executors, every topology on BigDL.
test-slow: setup-dev
	@$(IN_ENV) && pytest $(PARALLEL) -m slow

# The real digits to their published accuracy, on a standalone cluster, with BigDL and at 32 times the batch; halted
# workers, interrupted sweeps; what needs a download: a real HDFS and Airflow (40 and 200 MB in build/), Oozie's schemas.
test-nightly: setup-dev
	@$(IN_ENV) && pytest -m nightly

# The speeds that the README compares with a peer's, as JSON lines; hours on a quiet machine of two cores.
bench: setup-dev
	@$(IN_ENV) && python benchmarks/reading.py && python benchmarks/training.py && python benchmarks/bigdl.py && python benchmarks/als.py && python benchmarks/side_by_side.py && python benchmarks/scoring.py
