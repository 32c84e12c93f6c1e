"""Las preguntas tecleadas de `data_audit/phrasings/`: un archivo por tema, una pregunta por línea.

Cada línea: etiqueta, fichas que la contestan (la mejor primero; `-` si ninguna) y texto, con un
tabulador entre campos. U es urgente; N, no urgente; L, fuera de alcance; B, las dos últimas cosas
a la vez. No enseñan nada al modelo: con ellas se ajustan los pesos de `nurse_safety`.
"""

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).with_name("phrasings")


class Phrasing(NamedTuple):
    """Una pregunta tecleada y lo que se espera del chat."""

    label: str  # U, N, L o B
    records: list[str]  # fichas que la contestan, la mejor primero
    text: str

    @property
    def urgent(self) -> bool:
        return self.label in "UB"

    @property
    def scope(self) -> bool:
        """Si pide algo fuera de alcance."""
        return self.label in "LB"


def load_phrasings() -> list[Phrasing]:
    """Todas, por orden de archivo y de línea."""
    found = []
    for path in sorted(FOLDER.glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines():
            label, records, text = line.split("\t")
            found.append(Phrasing(label, [] if records == "-" else records.split(","), text))
    return found
