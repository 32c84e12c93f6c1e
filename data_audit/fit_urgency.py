"""Aprende los pesos con que `nurse_safety` reconoce urgencias y límites que ninguna regla previó.

Uso:     python data_audit/fit_urgency.py
Lee:     tests/safety_questions.tsv, nurse_phrasings.tsv, las preguntas de ajuste de
         benchmarks/clinical_eval y los registros verificados. Nunca lee las de prueba.
Escribe: nurse_safety_weights.json
Tarda:   menos de un minuto. Necesita scikit-learn (solo aquí).
"""

import json
import sys
from collections import Counter
from math import log
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nurse_common as common  # noqa: E402
import nurse_safety as safety  # noqa: E402
from nurse_text import load_phrasings  # noqa: E402

EXAMPLES = ROOT / "tests" / "safety_questions.tsv"
TUNE = ROOT / "benchmarks" / "clinical_eval" / "questions_tune.jsonl"
# Probabilidad desde la que cuenta cada objetivo; el programa imprime lo que da cada una.
THRESHOLDS = {"urgent": 0.55, "limit": 0.5}
INVERSE_PENALTY = 1.0
SMALLEST = 0.05  # los pesos menores no se guardan
FOLDS = 5
RAREST = 2  # ejemplos en que debe aparecer un rasgo para contar


def examples() -> list[tuple[str, bool, bool]]:
    """(pregunta, urgente, límite) de las cuatro fuentes; los registros dudosos quedan fuera."""
    found = []
    for line in EXAMPLES.read_text(encoding="utf-8").splitlines():
        label, text = line.split("\t")
        found.append((text, label in "UB", label in "LB"))
    found += [(text, label in "UB", label in "LB") for label, _, text in load_phrasings()]
    for line in TUNE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.append((row["question"], row["urgent"], row["scope"]))
    for row in common.load_records(common.DATA_FILE)[0]:
        acts = row["estilo"] in ("que_hacer", "caso_clinico")
        calm = row["gravedad"] in ("leve", "moderada") and not row["llamar_112"]
        if (urgent := row["gravedad"] == "vital" and acts) or calm:
            found.append((common.question_of(row), urgent, row["estilo"] == "limite"))
    return found


def fit(rows: list[set[str]], answers: list[bool], threshold: float) -> dict[str, object]:
    """Regresión logística; el umbral va dentro de `bias`, así que basta mirar el signo.

    Imprime cuánto acierta en validación cruzada, sin las reglas del léxico.
    """
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    counts = Counter(name for row in rows for name in row)
    kept = [{name: 1 for name in sorted(row) if counts[name] >= RAREST} for row in rows]
    table = DictVectorizer()
    matrix = table.fit_transform(kept)
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=3000)
    chances = cross_val_predict(model, matrix, answers, cv=FOLDS, method="predict_proba")[:, 1]
    alarms = [
        [p > threshold for p, a in zip(chances, answers, strict=True) if a is x]
        for x in (True, False)
    ]
    found, false = (sum(part) / len(part) for part in alarms)
    print(f"  en {FOLDS} partes: reconoce {found:.1%}, falsas alarmas {false:.1%}")
    model.fit(matrix, answers)
    pairs = zip(table.feature_names_, model.coef_[0].tolist(), strict=True)
    weights = {name: round(value, 3) for name, value in pairs if abs(value) >= SMALLEST}
    bias = model.intercept_[0] - log(threshold / (1 - threshold))
    return {"bias": round(float(bias), 3), "weights": weights}


def main() -> int:
    """Ajusta los dos objetivos y escribe los pesos."""
    found = examples()
    rows = [safety.features(text) for text, _, _ in found]
    answers = {"urgent": [row[1] for row in found], "limit": [row[2] for row in found]}
    weights = {name: fit(rows, answers[name], THRESHOLDS[name]) for name in answers}
    safety.WEIGHTS_FILE.write_text(
        json.dumps(weights, ensure_ascii=False, indent=0) + "\n", encoding="utf-8", newline="\n"
    )
    for name, model in weights.items():
        print(f"{name}: {len(found)} ejemplos, {len(model['weights'])} pesos")
    return 0


if __name__ == "__main__":
    common.run_script(main)
