# make demo: entorno y los cuatro pasos con la base incluida. make test: todas las pruebas.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
# Con «mini», LoRA debe llegar a todas las capas lineales; la base se explica en su README.
DEMO_FLAGS := --base-model mini --batch-size 8 --grad-accum 1 --epochs 8 --learning-rate 2e-3 --lora-r 16 --lora-alpha 32 --target-modules q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj
QUESTION := A un alumno de primaria le sangra la nariz en plena clase. ¿Cómo se le atiende?

.PHONY: demo test lint bench eval base weights

$(VENV)/ready: requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/ready-dev: requirements-dev.txt $(VENV)/ready
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

demo: $(VENV)/ready
	@if [ -d model_nurse_final ] && ! grep -q '"name": "mini"' model_nurse_final/manifest.json; then \
		echo "model_nurse_final/ no es de la demostración: moverla antes de «make demo»."; exit 1; fi
	$(RUN) 01_train_lora.py $(DEMO_FLAGS)
	$(RUN) 02_create_model_nurse.py
	# f16: los pesos del paso 2, sin cuantizar; con mini son 14 MB.
	$(RUN) 03_export_model_nurse.py --gguf-type f16
	$(RUN) 04_chat_nurse.py --question "$(QUESTION)"

test: $(VENV)/ready-dev
	$(RUN) -m pytest

lint: $(VENV)/ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

# Mediciones frente a la práctica, con la forma exacta de TinyLlama y pesos al azar.
bench: $(VENV)/ready-dev
	$(RUN) benchmarks/bench_export.py

# Después de «make demo»: cuánto recita y evaluación clínica de código y fichas.
eval: $(VENV)/ready-dev
	$(RUN) benchmarks/mini_recital.py
	$(RUN) benchmarks/clinical_eval.py --split all

base: $(VENV)/ready-dev
	$(RUN) modelo_base_mini/build_mini_base.py

# Después de cambiar registros, reglas o preguntas tecleadas.
weights: $(VENV)/ready-dev
	$(RUN) data_audit/fit_safety.py
