"""Lo que no puede alucinar: aviso de urgencia, límites, ficha más cercana y comparación.

Código, los registros, un léxico y pesos ajustados con preguntas tecleadas; ningún modelo de
lenguaje. No importa torch ni transformers.
"""

from .assess import Assessment, assess
from .compare import compare, dangers
from .retrieval import Hit, RecordIndex

__all__ = ["Assessment", "Hit", "RecordIndex", "assess", "compare", "dangers"]
