"""Audita los registros de primeros auxilios: formato, recuentos, unicidad y seguridad clínica.

Cómo se ejecuta:
    python data_audit/audit_records.py                      el conjunto completo
    python data_audit/audit_records.py tema.jsonl --partial  el borrador de un solo tema

Lee un JSONL (por defecto `primeros_auxilios_500.jsonl`) y escribe una línea por hallazgo. Sale con
1 si hay alguno. Tarda menos de 5 s. No corrige nada, y no sustituye a la revisión de un sanitario:
detecta contradicciones con la referencia, no juzga si una respuesta es buena.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data_audit import rules_clinical, rules_figures, rules_set, rules_text  # noqa: E402
from data_audit.text_tools import Finding, Problem  # noqa: E402

DEFAULT_FILE = ROOT / "primeros_auxilios_500.jsonl"
DEFAULT_TOKENIZER = ROOT.parent / "shared" / "tokenizer" / "tokenizer.model"

RECORD_RULES: tuple[Callable[[dict], Iterator[Problem]], ...] = (
    rules_text.check_input,
    rules_text.check_steps,
    rules_text.check_familiar,
    rules_text.check_signs,
    rules_text.check_sources,
    rules_clinical.check_vital,
    rules_clinical.check_forbidden,
    rules_clinical.check_drugs,
    rules_clinical.check_phones,
    rules_figures.check_figures,
    rules_figures.check_burn_time,
)


def audit_record(record: dict, count_tokens: Callable[[str], int] | None) -> Iterator[Problem]:
    """Todas las reglas que miran un solo registro, ya con el esquema comprobado."""
    yield from rules_text.check_length(record, count_tokens)
    for rule in RECORD_RULES:
        yield from rule(record)


def audit_set(records: rules_set.Numbered, complete: bool) -> Iterator[Finding]:
    """Todas las reglas que miran el conjunto; algunas solo tienen sentido si está completo."""
    yield from rules_set.check_counts(records, complete)
    yield from rules_set.check_duplicates(records)
    yield from rules_set.check_similarity(records)
    yield from rules_set.check_repeated_sentences(records)
    if complete:
        yield from rules_set.check_ids(records)
        yield from rules_set.check_population_and_severity(records)
        yield from rules_set.check_starts(records)
        yield from rules_set.check_myths(records)


def audit(
    records: Sequence[object],
    *,
    complete: bool,
    count_tokens: Callable[[str], int] | None,
) -> list[Finding]:
    """Los hallazgos de `records`, en orden de línea.

    `complete=False` es el borrador de un tema: sin `id`, con `registro`. `count_tokens` cuenta los
    tokens de un texto, sin `<s>` ni `</s>`; con `None` no se mide la longitud en tokens.
    """
    findings: list[Finding] = []
    valid: rules_set.Numbered = []
    for line, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            findings.append(Finding(line, "-", "esquema", "la línea no es un objeto JSON"))
            continue
        name = str(record.get("id", "-"))
        problems = list(rules_text.check_schema(record, partial=not complete))
        if not problems:
            valid.append((line, record))
            problems = list(audit_record(record, count_tokens))
        findings.extend(Finding(line, name, rule, message) for rule, message in problems)
    findings.extend(audit_set(valid, complete))
    return sorted(findings, key=lambda item: (item.line, item.rule))


def load_records(path: Path) -> list[object]:
    """Un objeto por línea del JSONL; `None` donde la línea no es JSON."""
    records: list[object] = []
    with path.open(encoding="utf-8") as stream:
        for text in stream:
            try:
                records.append(json.loads(text))
            except json.JSONDecodeError:
                records.append(None)
    return records


def load_token_counter(path: Path) -> Callable[[str], int] | None:
    """Contador de tokens con el vocabulario Llama-2, o `None` si falta el fichero o el paquete."""
    if not path.is_file():
        return None
    try:
        import sentencepiece
    except ImportError:
        return None
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return lambda text: len(processor.encode(text))


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Argumentos de la línea de órdenes."""
    parser = argparse.ArgumentParser(description="Audita los registros de primeros auxilios.")
    parser.add_argument("file", nargs="?", type=Path, default=DEFAULT_FILE, help="JSONL a auditar")
    parser.add_argument("--partial", action="store_true", help="borrador de un tema, sin id")
    parser.add_argument(
        "--tokenizer", type=Path, default=DEFAULT_TOKENIZER, help="vocabulario Llama-2 (.model)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Audita el fichero, escribe los hallazgos y devuelve el código de salida."""
    args = parse_args(argv)
    if not args.file.is_file():
        print(f"No existe el fichero {args.file}. Indique otro.", file=sys.stderr)
        return 1
    records = load_records(args.file)
    count_tokens = load_token_counter(args.tokenizer)
    if count_tokens is None:
        print("Sin el vocabulario Llama-2 o sin sentencepiece: no se miden los tokens.")
    findings = audit(records, complete=not args.partial, count_tokens=count_tokens)
    for item in findings:
        name = "" if item.record_id == "-" else f" {item.record_id}"
        print(f"{args.file.name}:{item.line}{name}: [{item.rule}] {item.message}")
    print(f"{len(records)} registros, {len(findings)} hallazgos.")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
