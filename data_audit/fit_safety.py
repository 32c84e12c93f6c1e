"""Ajusta los pesos con que `nurse_safety` reconoce urgencias, límites y la ficha que contesta.

Uso:     python data_audit/fit_safety.py
Lee:     data_audit/phrasings/, tests/safety_questions.tsv, las preguntas de ajuste de
         benchmarks/clinical_eval y los registros verificados. Nunca lee las de reserva.
Escribe: nurse_safety/weights.npz
Tarda:   unos 13 minutos en 2 núcleos.

Ficha: cada rasgo es un vector corto, la pregunta es su suma y de ella sale la probabilidad de cada
ficha (como fastText: Joulin et al., «Bag of Tricks for Efficient Text Classification», 2017).
Urgencia y límite: un peso por rasgo (regresión logística) y, sumado, lo que suelen ser las
preguntas que contesta cada ficha, también con un peso por ficha; lo segundo sabe que «¿qué es…?»
no urge aunque dé miedo.
"""

import json
import math
import sys
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import nurse_common as common  # noqa: E402
from data_audit.phrasing_files import load_phrasings  # noqa: E402
from nurse_safety import learned  # noqa: E402

EXAMPLES = ROOT / "tests" / "safety_questions.tsv"
TUNE = ROOT / "benchmarks" / "clinical_eval" / "questions_tune.jsonl"
# Ejemplos en que debe aparecer un rasgo para contar; de los trozos («c»), que son muchos, más.
RAREST, RAREST_PIECE = 2, 3
RANK = 128  # números del vector de cada rasgo
NORM = 3.0  # de los pesos de los rasgos de una pregunta: con 1 el ajuste es mucho más lento
EPOCHS, BATCH, LEARNING_RATE = 20, 256, 1e-2
SECOND_CHOICE = 0.4  # cuánto se aprende de una ficha que vale sin ser la mejor
PENALTY = 2.0  # de los pesos de urgencia y límite al cuadrado (½·PENALTY·w²)
PENALTY_RECORDS = 0.3  # de los que tiene en ellos cada ficha: se ve en muchas menos preguntas
PRIOR = 1.0, 3.0  # de las preguntas de una ficha: urgentes y en total, antes de contar ninguna
CLEAR_TIMES = 5  # lo que cuenta un caso corto y claro: no puede fallar
FOLDS = 3  # partes en que se lee cada pregunta con un modelo que no la vio


class Example(NamedTuple):
    """Una pregunta y lo que se espera; None donde no consta."""

    text: str
    urgent: bool | None
    scope: bool | None
    records: list[str] | None
    times: int = 1  # cuántas veces cuenta al aprender si urge o pasa del límite

    @property
    def classes(self) -> list[str]:
        """Las fichas que contestan o, si ninguna, por qué."""
        return self.records or [learned.OUTSIDE if self.scope else learned.NONE]


def examples(records: list[common.Record]) -> list[Example]:
    """Las cuatro fuentes. De un registro dudoso no se aprende si urge."""
    found = [Example(p.text, p.urgent, p.scope, p.records) for p in load_phrasings()]
    for line in EXAMPLES.read_text(encoding="utf-8").splitlines():
        label, text = line.split("\t")
        found.append(Example(text, label in "UB", label in "LB", None, CLEAR_TIMES))
    for line in TUNE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        found.append(Example(row["question"], row["urgent"], row["scope"], row["records"]))
    for row in records:
        acts = row["estilo"] in ("que_hacer", "caso_clinico")
        calm = row["gravedad"] in ("leve", "moderada") and not row["llamar_112"]
        urgent = True if row["gravedad"] == "vital" and acts else False if calm else None
        limit = row["estilo"] == "limite"
        found.append(Example(common.question_of(row), urgent, limit, [row["id"]]))
        found.append(Example(row["output"], None, None, [row["id"]]))
    return found


class Bags(NamedTuple):
    """Rasgos de muchas preguntas, en el formato de `EmbeddingBag`."""

    names: torch.Tensor  # (rasgos,) índice de cada rasgo
    weights: torch.Tensor  # (rasgos,) peso dentro de su pregunta; los de cada una tienen norma NORM
    starts: torch.Tensor  # (preguntas + 1,) dónde empieza cada pregunta

    def pick(self, rows: torch.Tensor) -> "Bags":
        """Solo esas preguntas."""
        begin, size = self.starts[rows], self.starts[rows + 1] - self.starts[rows]
        starts = torch.cat([torch.zeros(1, dtype=torch.long), size.cumsum(0)])
        place = torch.repeat_interleave(begin - starts[:-1], size) + torch.arange(int(starts[-1]))
        return Bags(self.names[place], self.weights[place], starts)


def bags(lists: list[list[str]], place: dict[str, int], rarity: torch.Tensor) -> Bags:
    """Los rasgos conocidos de cada pregunta."""
    known = [[place[name] for name in names if name in place] for names in lists]
    starts = torch.tensor([0, *map(len, known)]).cumsum(0)
    names = torch.tensor([index for row in known for index in row])
    weights = rarity[names]
    owner = torch.repeat_interleave(torch.arange(len(known)), starts.diff())
    norms = torch.zeros(len(known)).index_add_(0, owner, weights**2).sqrt()
    return Bags(names, NORM * weights / norms[owner], starts)


def fit_head(
    found: Bags, usual: torch.Tensor, answers: torch.Tensor, times: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Regresión logística: (`size` pesos de los rasgos, los de `usual` y, al final, el término).

    `usual`: (preguntas, 1 + fichas) lo que suelen ser las de sus fichas, y cuánto es de cada una.
    """
    shape = len(answers), size
    table = torch.sparse_csr_tensor(found.starts, found.names, found.weights.sign(), shape)
    weights = torch.zeros(size + usual.shape[1] + 1, requires_grad=True)
    penalties = torch.full_like(weights, PENALTY, requires_grad=False)
    penalties[size:] = PENALTY_RECORDS
    penalties[-1] = 0
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        logits = (table @ weights[:size, None])[:, 0] + usual @ weights[size:-1] + weights[-1]
        loss = F.binary_cross_entropy_with_logits(logits, answers, times, reduction="sum")
        loss = loss + 0.5 * (penalties * weights**2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()[:size], weights.detach()[size:]


def targets(lists: list[list[str]], classes: list[str]) -> torch.Tensor:
    """(preguntas, fichas) probabilidad que debe tener cada ficha; la mejor pesa más."""
    place = {name: index for index, name in enumerate(classes)}
    table = torch.zeros(len(lists), len(classes))
    for row, names in enumerate(lists):
        for rank, name in enumerate(names):
            table[row, place[name]] = SECOND_CHOICE if rank else 1.0
    return table / table.sum(1, keepdim=True)


def fit_reader(found: Bags, wanted: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
    """(vector de cada rasgo, matriz y término independiente de las fichas)."""
    torch.manual_seed(common.SEED)
    vectors = torch.nn.EmbeddingBag(size, RANK, mode="sum", sparse=True)
    torch.nn.init.normal_(vectors.weight, 0, 0.9 / math.sqrt(RANK))
    output = torch.nn.Linear(RANK, wanted.shape[1])
    torch.nn.init.normal_(output.weight, 0, 1 / math.sqrt(RANK))
    torch.nn.init.zeros_(output.bias)
    # De cada lote solo se mueven los vectores de sus rasgos: igual de bueno y más rápido.
    optimizers = (
        torch.optim.SparseAdam(vectors.parameters(), lr=LEARNING_RATE),
        torch.optim.Adam(output.parameters(), lr=LEARNING_RATE),
    )
    steps = EPOCHS * math.ceil(len(wanted) / BATCH)
    schedules = [torch.optim.lr_scheduler.LinearLR(item, 1.0, 0.0, steps) for item in optimizers]
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(wanted)).split(BATCH):
            batch = found.pick(rows)
            hidden = vectors(batch.names, batch.starts[:-1], per_sample_weights=batch.weights)
            loss = F.cross_entropy(output(hidden), wanted[rows])
            loss.backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
            total += float(loss.detach()) * len(rows)
        print(f"  ficha, vuelta {epoch + 1} de {EPOCHS}: pérdida {total / len(wanted):.3f}")
    return vectors.weight.detach(), output.weight.detach(), output.bias.detach()


def quantized(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(dos números de 4 bits por byte, escala de cada fila): pesa la octava parte que en fp32."""
    scales = vectors.abs().amax(1).clamp(min=1e-8) / 7
    whole = (vectors / scales[:, None]).round().to(torch.int16) + 8
    return (whole[:, ::2] * 16 + whole[:, 1::2]).to(torch.uint8), scales


def rates(found: list[Example], field: str, classes: list[str]) -> torch.Tensor:
    """(fichas,) qué parte de las preguntas que contesta cada una cumple `field`."""
    place = {name: index for index, name in enumerate(classes)}
    counts = torch.tensor([PRIOR]).repeat(len(classes), 1)
    for item in found:
        answer = getattr(item, field)
        if item.records is not None and answer is not None:
            counts[place[item.classes[0]]] += torch.tensor([float(answer), 1.0])
    return counts[:, 0] / counts[:, 1]


def vocabulary(lists: list[list[str]]) -> tuple[dict[str, int], torch.Tensor]:
    """(puesto de cada rasgo, logaritmo de su rareza)."""
    counts = Counter(name for names in lists for name in names)
    least = {"c": RAREST_PIECE}
    kept = sorted(name for name, count in counts.items() if count >= least.get(name[0], RAREST))
    place = {name: i for i, name in enumerate(kept)}
    return place, torch.tensor([math.log(len(lists) / counts[name]) for name in place])


def read(reader: tuple[torch.Tensor, ...], found: Bags) -> torch.Tensor:
    """(preguntas, fichas) probabilidades que da un lector."""
    vectors, output, bias = reader
    hidden = F.embedding_bag(
        found.names, vectors, found.starts[:-1], mode="sum", per_sample_weights=found.weights
    )
    return torch.softmax(hidden @ output.T + bias, 1)


def unseen(found: Bags, wanted: torch.Tensor, taught: torch.Tensor, size: int) -> torch.Tensor:
    """(preguntas, fichas) lo que lee en cada pregunta un lector que no se ajustó con ella."""
    chances = torch.zeros(len(wanted), wanted.shape[1])
    part = torch.arange(len(wanted)) % FOLDS
    for fold in range(FOLDS):
        print(f"Lector {fold + 1} de {FOLDS}, sin su parte:")
        rows = (taught & (part != fold)).nonzero()[:, 0]
        rest = (part == fold).nonzero()[:, 0]
        reader = fit_reader(found.pick(rows), wanted[rows], size)
        chances[rest] = read(reader, found.pick(rest))
    return chances


def fit(found: list[Example], lists: list[list[str]], classes: list[str]) -> dict[str, np.ndarray]:
    """Lo que se guarda en `weights.npz`, menos los nombres de las fichas."""
    place, rarity = vocabulary(lists)
    everything = bags(lists, place, rarity)
    whole = [[name for name in names if name[0] != "c"] for names in lists]  # sin trozos
    words = bags(whole, place, rarity)
    taught = torch.tensor([item.records is not None for item in found])
    wanted = targets([item.classes for item in found], classes)
    chances = unseen(everything, wanted, taught, len(place))
    heads, usuals, shares = [], [], []
    for field in ("urgent", "scope"):
        shares.append(rates(found, field, classes))
        rows = torch.tensor([i for i, x in enumerate(found) if getattr(x, field) is not None])
        answers = torch.tensor([float(getattr(found[i], field)) for i in rows])
        times = torch.tensor([float(found[i].times) for i in rows])
        usual = torch.cat([torch.logit(chances @ shares[-1])[:, None], chances], 1)[rows]
        head, learnt = fit_head(words.pick(rows), usual, answers, times, len(place))
        heads.append(head)
        usuals.append(learnt)
    usual_weights = torch.stack(usuals, 1)  # (2 + fichas, 2): ganancia, fichas y término
    rows = taught.nonzero()[:, 0]
    vectors, output, bias = fit_reader(everything.pick(rows), wanted[rows], len(place))
    small, scales = quantized(vectors)
    return {
        "names": np.frombuffer("\n".join(place).encode(), np.uint8),
        "rarity": rarity.half().numpy(),
        "heads": torch.stack(heads, 1).half().numpy(),
        "head_bias": usual_weights[-1].numpy(),
        "usual_gain": usual_weights[0].numpy(),
        "usual_records": usual_weights[1:-1].half().numpy(),
        "rates": torch.stack(shares, 1).numpy(),
        "vectors": small.numpy(),
        "scales": (NORM * scales).half().numpy(),
        "output": output.half().numpy(),
        "output_bias": bias.numpy(),
    }


def main() -> int:
    """Ajusta y escribe los pesos."""
    warnings.filterwarnings("ignore", "Sparse")  # avisos de torch sobre su formato disperso
    records = common.load_records(common.DATA_FILE)[0]
    found = examples(records)
    with ProcessPoolExecutor() as pool:
        lists = list(pool.map(learned.features, [item.text for item in found], chunksize=256))
    print(f"{len(found)} preguntas, {sum(map(len, lists)) // len(lists)} rasgos cada una")
    known = [f"{row['id']} {learned.digest(row)}" for row in records]
    known += [f"{learned.NONE} -", f"{learned.OUTSIDE} -"]
    arrays = fit(found, lists, [line.split()[0] for line in known])
    arrays["classes"] = np.frombuffer("\n".join(known).encode(), np.uint8)
    with common.staged(learned.WEIGHTS_FILE) as partial:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)
    size = learned.WEIGHTS_FILE.stat().st_size / 1e6
    print(f"{learned.WEIGHTS_FILE.name}: {len(arrays['rarity'])} rasgos, {size:.1f} MB")
    return 0


if __name__ == "__main__":
    common.run_script(main)
