"""Evaluación clínica: qué muestra el chat ante preguntas escritas como las teclea la gente.

Uso:     python benchmarks/clinical_eval.py                        solo fichas, las aprendidas
         python benchmarks/clinical_eval.py --details              y cada fallo, uno por línea
         python benchmarks/clinical_eval.py --split all            las tres partes y RESULTS.md
         python benchmarks/clinical_eval.py --split all --model model_nurse_final
Lee:     clinical_eval/questions_tune.jsonl, questions_dev.jsonl y questions_test.jsonl, los
         registros y, si se pide, una carpeta de modelo o un .gguf.
Escribe: con --split all, la sección de RESULTS.md de lo que se mide y su gráfico.
Tarda:   segundos con las fichas; con un modelo, lo que tarde en contestar cada pregunta.
No hace: no juzga el estilo ni sustituye la lectura de un sanitario: comprueba datos concretos.

La parte de reserva (test) existe para medir sin haberla mirado: sus fallos no se listan salvo con
`--split test --details`, y quien ajusta las reglas no la abre.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import clinical_report as report  # noqa: E402
import clinical_scoring as scoring  # noqa: E402

import nurse_common as common  # noqa: E402
import nurse_engines as engines  # noqa: E402
import nurse_safety as safety  # noqa: E402

PROGRESS_EVERY = 20  # preguntas entre dos líneas de avance, con un modelo


def evaluate(questions: list[scoring.Question], index: Any, ask: Any) -> list[scoring.Outcome]:
    """Pasa cada pregunta por el código del chat y, si `ask` no es None, por el modelo."""
    outcomes = []
    for number, question in enumerate(questions, start=1):
        text = common.clean_question(question.question)
        start = perf_counter()
        verdict = safety.assess(text)
        hits = index.search(text, k=3)
        milliseconds = 1000 * (perf_counter() - start)
        outcome = scoring.score(question, verdict, hits, milliseconds)
        if ask and not verdict.limit:  # con límite, el modelo no habla
            answer = ask(text)
            record = scoring.shown_record(verdict, hits)
            differs = bool(record and safety.compare(answer, record))
            outcome = scoring.add_answer(outcome, verdict, record, answer, differs)
        outcomes.append(outcome)
        if ask and number % PROGRESS_EVERY == 0:
            print(f"{number} de {len(questions)} preguntas", file=sys.stderr)
    return outcomes


def open_model(args: argparse.Namespace) -> tuple[Any, str, str]:
    """(función que contesta o None, nombre corto, descripción)."""
    if args.engine == "records":
        return None, "fichas", "solo fichas, sin modelo"
    engine, _ = engines.open_engine(args.model, args.engine)
    sampling = engines.Sampling(temperature=0.0, max_new_tokens=args.max_new_tokens)

    def ask(text: str) -> str:
        return "".join(engine.stream(common.build_messages(text), sampling)).strip()

    name = re.sub(r"\W+", "_", args.model.name)
    return ask, name, f"{args.model.name} ({engine.label})"


def failures(outcome: scoring.Outcome) -> Iterator[str]:
    """Qué ha fallado en una pregunta, para corregir las reglas o los registros."""
    question = outcome.question
    if question.urgent and not outcome.alarm:
        yield "urgencia sin aviso"
    if outcome.alarm and not question.urgent:
        yield "falsa alarma"
    if question.scope and not outcome.limited:
        yield "fuera de alcance sin límite"
    if outcome.limited and not (question.scope or question.urgent):
        yield "límite donde no tocaba"
    if question.records and outcome.rank() > 1:
        place = f"puesto {outcome.rank()}" if outcome.rank() < 99 else "ausente"
        found, wanted = " ".join(outcome.found), " ".join(question.records)
        yield f"ficha: {place} (sale {found or 'ninguna'}; vale {wanted})"
    yield from (f"falta el dato {fact}" for fact in outcome.missing)
    yield from (f"peligroso: {sentence}" for sentence in outcome.dangers)
    yield from (f"peligroso en el modelo: {sentence}" for sentence in outcome.dangers_answer)


def print_failures(outcomes: list[scoring.Outcome]) -> None:
    """Una pregunta por bloque, solo las que fallan en algo."""
    for outcome in outcomes:
        problems = list(failures(outcome))
        if problems:
            print(f"\n{outcome.question.id} [{outcome.question.kind}] {outcome.question.question}")
            print("\n".join(f"    {problem}" for problem in problems))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = common.SpanishParser(__doc__)
    default = " (por defecto: %(default)s)"
    add = parser.add
    add("--split", choices=(*scoring.SPLITS, "all"), default="tune",
        help="tune (aprendidas), dev (umbrales), test (reserva) o all" + default)  # fmt: skip
    add(
        "--ids",
        default="",
        help="solo las preguntas cuyo id empieza así; varios comienzos, con comas",
    )
    add("--engine", choices=("records", "auto", "transformers", "llama.cpp"),
        help="records no usa ningún modelo (por defecto: records, o auto con --model)")  # fmt: skip
    add("--model", type=Path, help=f"carpeta o .gguf (con --engine: {common.MODEL_DIR.name})")
    add("--max-new-tokens", type=common.number(int, 1), default=common.MAX_NEW_TOKENS,
        help="largo máximo de cada respuesta del modelo" + default)  # fmt: skip
    add("--data", type=Path, default=common.DATA_FILE, help="fichas verificadas" + default)
    add("--details", action="store_true", help="lista los fallos (con all, los de tune)")
    args = parser.parse_args(argv)
    args.engine = args.engine or ("auto" if args.model else "records")
    args.model = args.model or common.MODEL_DIR
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    records, _ = common.load_records(args.data)
    if any("id" not in record for record in records):
        common.fail(f"{args.data.name}: hay registros sin «id» y las preguntas los citan por él.")
    ask, name, label = open_model(args)
    start = perf_counter()
    index = safety.RecordIndex(records)
    print(f"Índice de {len(records)} fichas: {1000 * (perf_counter() - start):.0f} ms. {label}.")
    splits = scoring.SPLITS if args.split == "all" else (args.split,)
    runs, wanted = {}, tuple(args.ids.split(","))
    for split in splits:
        chosen = [item for item in scoring.load_questions(split) if item.id.startswith(wanted)]
        if chosen:
            runs[split] = evaluate(chosen, index, ask)
    if not runs:
        common.fail(f"Ninguna pregunta tiene un id que empiece así: «{args.ids}».")
    report.print_table(report.table_rows(runs))
    if args.details:
        print_failures(runs.get(splits[0], []))  # con «all», los de las aprendidas
    if args.split == "all" and not args.ids:
        image = report.write_report(runs, name, label, common.sha256_file(args.data))
        print(f"Escrito: {report.RESULTS_FILE.name} y {image.name}, en {image.parent}")
    return 0


if __name__ == "__main__":
    common.run_script(main)
