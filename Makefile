# Run `make` for the list of targets. Everything happens inside .venv; nothing outside the clone is touched.

PYTHON ?= python3.11
PY := .venv/bin/python
WORLD := data_prep/microworld
MODELS := checkpoints/microworld

export TOKENIZERS_PARALLELISM := false
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-browser test-load test-fullsize test-data bench lint \
	microworld-data microworld-region microworld-models \
	microworld-qwen microworld-sam microworld-masked-token microworld-next-scale \
	evaluate-rehearsal fetch-models clip-lane autoencoder-lane inpaint-lane ip2p-lane study study-report

# a command of data_prep/ for a training configuration, half of the shards on each of two cores
define halves
OMP_NUM_THREADS=1 $(PY) data_prep/$(1) --config $(2) --parts 2 --part 1 & other=$$!; \
OMP_NUM_THREADS=1 $(PY) data_prep/$(1) --config $(2) --parts 2 --part 0 && wait $$other
endef

# of configs/study/teacher.yaml
TWO := 'data/microworld/train/{00000..00001}.tar'
BY_IP2P := --generator.name instruct_pix2pix --generator.path $(MODELS)/ip2p \
	--search.generator '{num_inference_steps: 4, strength: 1.0, guidance_scale: 1.5}' \
	--data.features data/study/regions_instruct_pix2pix

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "%-24s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed  ## make .venv with the pinned packages (Python 3.11)

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv pip install --python $(PY) --compile-bytecode -r requirements.lock
	$(PY) -m uv pip install --python $(PY) --no-deps -e .
	@touch $@

demo: export HF_HUB_OFFLINE := 1
demo: install  ## learn where to edit from captions alone, edit, measure: outputs/demo/report.html, at most eight minutes
	$(PY) experiments/demo.py

test: export HF_HUB_OFFLINE := 1
test: install  ## the suite, without network or GPU: at most ten minutes from a cold clone
	$(PY) -m pytest -n 2 --dist worksteal

test-slow: export HF_HUB_OFFLINE := 1
test-slow: install  ## what takes minutes, test-fullsize included
	$(PY) -m pytest -m slow

test-browser: export HF_HUB_OFFLINE := 1
test-browser: install  ## the page in a real browser: Debian's Chromium, or one that playwright installs
	@command -v chromium >/dev/null || $(PY) -m playwright install chromium || echo "no Chromium: the tests are skipped"
	$(PY) -m pytest -m slow tests/test_browser.py

test-load: export HF_HUB_OFFLINE := 1
test-load: install  ## the page under fifty clients with mixed requests: minutes; CLIENTS=12 for fewer
	$(PY) -m pytest -m slow -s tests/test_load.py

test-fullsize: export HF_HUB_OFFLINE := 1
test-fullsize: install  ## the public models' sizes, random weights: one training step, one edit, time and memory
	$(PY) -m pytest -m slow -s tests/test_fullsize.py

test-data: export HF_HUB_OFFLINE := 1
test-data: install  ## data at scale: kill loops, Ray on this machine (installs the extra `scale`), docs/data.md's rehearsal
	$(PY) -m uv pip install --python $(PY) --constraint requirements.lock "ray[data]>=2.40"
	$(PY) -m pytest -m slow tests/test_killed_instructions.py tests/test_whole_way.py

evaluate-rehearsal: export HF_HUB_OFFLINE := 1
evaluate-rehearsal: install  ## a paper's tables on look-alikes of the benchmarks, minutes: outputs/rehearsal/tables/*/comparison.md
	$(PY) -m tests.rehearsal

bench: export HF_HUB_OFFLINE := 1
bench: install microworld-data  ## speed and cost beside named baselines, 50 minutes: benchmarks/results.json, RESULTS.md
	$(PY) -m benchmarks.loader
	$(PY) -m benchmarks.instructions
	$(PY) -m benchmarks.region_cost
	$(PY) -m benchmarks.foi_cost
	$(PY) -m benchmarks.filters
	$(PY) -m benchmarks.step_cost
	$(PY) -m benchmarks.memory
	$(PY) -m benchmarks.train_step
	$(PY) -m benchmarks.edit
	$(PY) -m benchmarks.resume
	$(PY) -m benchmarks.two_processes
	$(PY) -m benchmarks.start
	$(PY) -m benchmarks.page
	$(PY) -m benchmarks.crop
	$(PY) -m benchmarks.adapter_overhead
	$(PY) -m benchmarks.pipeline_memory
	$(PY) -m benchmarks.race

lint: install  ## style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

microworld-data: install  ## shards and benchmark for the full microworld run
	$(PY) $(WORLD)/pack.py --split train --samples 32000 --out data/microworld/train
	$(PY) $(WORLD)/pack.py --split validation --samples 1000 --out data/microworld/validation
	$(PY) $(WORLD)/pack.py --split test --samples 1200 --out data/microworld/test

microworld-region: install  ## learn the shipped region from microworld-data: search, proposals, training: an hour
	$(call halves,search_regions.py,configs/train_microworld_search.yaml --data.train 'data/microworld/train/{00000..00008}.tar')
	$(call halves,make_proposals.py,configs/train_microworld_search.yaml)
	$(PY) train.py --config configs/train_microworld_search.yaml
	$(PY) train.py --config configs/train_microworld_settle.yaml

microworld-models: install  ## pre-train the tiny frozen models from scratch: a night of two cores; run again to go on
	$(MAKE) -j2 inpaint-lane ip2p-lane

clip-lane:
	$(PY) experiments/pretrain_t5.py --out $(MODELS)/t5 --threads 1
	$(PY) experiments/pretrain_clip.py --out $(MODELS)/clip --threads 1
	$(PY) experiments/pretrain_clip.py --out $(MODELS)/judge --patch_size 16 --seed 1 --steps 4000 --threads 1
	$(PY) experiments/pretrain_dino.py --out $(MODELS)/dino --threads 1

autoencoder-lane:
	$(PY) experiments/pretrain_autoencoder.py --out outputs/microworld_models/autoencoder --threads 1

inpaint-lane: autoencoder-lane
	$(PY) experiments/pretrain_inpaint.py --out $(MODELS)/inpaint --threads 1

ip2p-lane: clip-lane autoencoder-lane
	$(PY) experiments/pretrain_ip2p.py --out $(MODELS)/ip2p --threads 1

microworld-qwen: install  ## pre-train the tiny language model: 80 minutes of one core
	$(PY) experiments/pretrain_qwen.py --out $(MODELS)/qwen --steps 12000 --threads 1

microworld-sam: install  ## pre-train the tiny Segment Anything: 15 minutes of one core
	$(PY) experiments/pretrain_sam.py --out $(MODELS)/sam --threads 1

microworld-masked-token: install  ## pre-train the tiny masked-token generator, after microworld-models: 70 minutes of one core
	$(PY) experiments/pretrain_masked_token.py --out $(MODELS)/masked_token --part tokenizer --threads 1 --batch 8
	$(PY) experiments/pretrain_masked_token.py --out $(MODELS)/masked_token --part transformer --threads 1

microworld-next-scale: install  ## pre-train the tiny next-scale model, after microworld-models: 60 minutes of a busy core
	$(PY) experiments/pretrain_next_scale.py --out $(MODELS)/next_scale --part tokenizer --threads 1
	$(PY) experiments/pretrain_next_scale.py --out $(MODELS)/next_scale --part transformer --threads 1

study: microworld-data  ## the experiments of configs/study/ (hours; run again to go on), then docs/results.md and its figures
	$(call halves,make_proposals.py,configs/train_microworld.yaml)
	for n in 1000 3000 8000 10000; do $(PY) $(WORLD)/pack.py --split train --samples $$n --out data/study/$$n || exit 1; done
	$(PY) $(WORLD)/oracle_proposals.py --kind perfect --out data/study/perfect_proposals
	$(PY) $(WORLD)/oracle_proposals.py --kind relaid --out data/study/relaid_proposals
	$(PY) data_prep/make_proposals.py --config configs/train_microworld.yaml --data.train data/study/1000 \
		--data.proposals data/study/proposals_1000 --data.proposal_rounds 8
	for p in 10 30 50; do $(PY) $(WORLD)/mismatched.py --share 0.$$p --out data/study/mismatched_$$p || exit 1; done
	for p in 10 30; do $(PY) $(WORLD)/mismatched.py --share 0.$$p --negatives --out data/study/negatives_$$p || exit 1; done
	$(call halves,search_regions.py,configs/train_microworld_settle.yaml --data.train $(TWO))
	$(call halves,search_regions.py,configs/train_microworld_settle.yaml --data.train $(TWO) $(BY_IP2P))
	$(PY) experiments/transfer.py --jobs 2
	$(PY) experiments/study.py configs/study/*.yaml --jobs 2
	$(PY) experiments/study_edits.py configs/study/ablation.yaml --jobs 2
	for m in landscape gradient_paths mask_quality patch_probe foi_study change_map_study seam_study; do $(PY) experiments/$$m.py || exit 1; done
	$(PY) experiments/dissect.py --cells docs/study/cells.json
	$(PY) experiments/watch_regions.py --config configs/train_microworld.yaml --max_seconds 0 --max_steps 1500 --out outputs/watch_regions
	$(PY) experiments/train_ceiling.py --out outputs/ceiling
	$(PY) experiments/dissect.py --out docs/study/regions_ceiling.csv --checkpoint outputs/ceiling/region_predictor
	$(MAKE) study-report

study-report: install  ## docs/results.md and docs/figures/ from the result files in docs/study/
	$(PY) experiments/study_report.py

fetch-models: install  ## download the public models of edit_sd15, edit_foi and train_sd15_* for machines without a network
	$(PY) data_prep/fetch_models.py
