"""Paso 4: conversa en la terminal con TinyLlama Nurse. Es el único que se vuelve a ejecutar.

Uso:     python 04_chat_nurse.py
         python 04_chat_nurse.py --question "¿Qué hago ante una quemadura?"
         python 04_chat_nurse.py --records-only         (solo fichas verificadas, sin modelo)
Lee:     model_nurse_final/ o su .gguf (pasos 2 y 3) y los registros verificados.
Escribe: nada, salvo lo que pida /guardar y el número de emergencias que se elija.
Tarda:   unos segundos en arrancar; con GGUF, decenas de tokens por segundo en una CPU.
No hace: no diagnostica, no receta, no da dosis y no sustituye a un profesional ni al 112.

Orden de cada respuesta: aviso de urgencia (lo decide el código, antes que el modelo), respuesta
del modelo y ficha verificada más cercana, entera si el modelo no dice lo mismo.
"""

import argparse
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import nurse_common as common
import nurse_engines as engines
import nurse_safety as safety
import nurse_terminal as terminal

NOTICE = (
    "AVISO: esto no es un profesional sanitario y puede equivocarse. En una emergencia, llamar "
    "ahora al {number}."
)
WELCOME = "Escribir la pregunta. «nuevo» empieza de cero, «salir» termina, /ayuda da las órdenes."
HELP = """/ayuda               esta lista
/nuevo               olvida la conversación
/repetir             vuelve a contestar la última pregunta
/ficha N             muestra la ficha verificada N
/fuentes             fuentes de la última ficha mostrada
/guardar ARCHIVO     guarda la conversación como texto
/numero N            cambia el número de emergencias (número o país) y lo recuerda
/estado              modelo, motor y memoria de la conversación
/salir               termina (también salir, exit o quit)
Ctrl-C detiene una respuesta sin perder la conversación."""
PLAIN_WORDS = ("salir", "exit", "quit", "nuevo", "ayuda")  # órdenes también sin barra


class Chat:
    """Una conversación: motor (None con solo fichas), fichas verificadas e historia."""

    def __init__(self, engine: Any, identity: str, index: Any, args: argparse.Namespace) -> None:
        self.engine, self.identity, self.index = engine, identity, index
        self.sampling = engines.Sampling(
            0.0 if args.greedy else args.temperature, args.top_p, args.max_new_tokens, args.seed
        )
        self.number = args.emergency_number or terminal.remembered_number()
        self.screen = terminal.Screen()
        self.history: list[common.Message] = []
        self.question: str | None = None
        self.record: common.Record | None = None

    def answer(self, question: str) -> None:
        """Aviso de urgencia, respuesta y ficha, en ese orden."""
        self.question = question = common.clean_question(question)
        verdict = safety.assess(question, self.number)
        if verdict.notice:
            self.screen.say(f"EMERGENCIA: {verdict.notice}", "alarm")
        text = None
        if verdict.limit:
            self.screen.say(f"Enfermero: {verdict.limit}")
        elif self.engine:
            text = self._generate(question)
        self._show_closest(question, text, limited=verdict.limit is not None)

    def _generate(self, question: str) -> str:
        """Respuesta del modelo, que pasa a la historia; Ctrl-C conserva lo dicho hasta ahí."""
        turn = {"role": "user", "content": question}
        room = self.engine.context - self.sampling.max_new_tokens
        while self.history and self.engine.count_tokens([*self.history, turn]) > room:
            del self.history[:2]  # se olvida el turno más antiguo
        if self.engine.count_tokens([turn]) > room:
            self.screen.say("La pregunta no cabe en la memoria del modelo: resumirla.")
            return ""
        pieces = self.engine.stream([*self.history, turn], self.sampling)
        shown: list[str] = []
        try:
            self.screen.stream("Enfermero: ", _keep(pieces, shown))
        except KeyboardInterrupt:
            self.screen.say("(respuesta detenida)")
        finally:
            pieces.close()  # detiene al motor
        text = "".join(shown).strip()
        self.history += [turn, {"role": "assistant", "content": text}]
        return text

    def _show_closest(self, question: str, text: str | None, limited: bool) -> None:
        """La ficha más cercana: entera si el modelo calla o difiere, citada si dice lo mismo."""
        hits = [hit for hit in self.index.search(question) if hit.close]
        if not hits:
            self.screen.say("Ninguna ficha verificada trata esta pregunta.", "record")
            return
        self.record = record = hits[0].record
        reasons = safety.compare(text, record) if text is not None else []
        if text is not None and not reasons:
            source = f"{record['id']} ({record['fuente']})"
            self.screen.say(f"Coincide con la ficha verificada {source}.", "record")
        elif not limited or record["estilo"] != "limite":
            if reasons:
                self.screen.say(f"El modelo no dice lo mismo que la ficha: {'; '.join(reasons)}.")
            self._print_record()

    def _print_record(self) -> None:
        record = self.record
        title = f"Ficha verificada {record['id']}: {common.question_of(record)}"
        self.screen.say(f"{title}\n{record['output']}\nFuente: {record['fuente']}.", "record")

    def command(self, line: str) -> None:
        """Ejecuta una orden, con barra o sin ella."""
        name, _, rest = line.removeprefix("/").strip().partition(" ")
        actions = {
            "ayuda": lambda: self.screen.say(HELP),
            "nuevo": self.forget,
            "repetir": self.repeat,
            "ficha": lambda: self.show(rest.strip()),
            "fuentes": self.sources,
            "guardar": lambda: self.save(rest.strip()),
            "numero": lambda: self.change_number(rest.strip()),
            "estado": self.status,
        }
        unknown = f"No conozco la orden /{name}. Ver /ayuda."
        actions.get(name.lower().replace("ú", "u"), lambda: self.screen.say(unknown))()

    def forget(self) -> None:
        self.history, self.question, self.record = [], None, None
        self.screen.say("Conversación nueva.")

    def repeat(self) -> None:
        if self.question is None:
            self.screen.say("Todavía no hay ninguna pregunta que repetir.")
            return
        if self.history and self.history[-2]["content"] == self.question:
            del self.history[-2:]
        self.answer(self.question)

    def show(self, text: str) -> None:
        digits = text.upper().removeprefix("PA-")
        wanted = f"PA-{int(digits):04d}" if digits.isdecimal() else None
        found = [row for row in self.index.records if row.get("id") == wanted]
        if not wanted or not found:
            self.screen.say(f"No hay ficha «{text}». Escribir /ficha y su número, como /ficha 12.")
            return
        self.record = found[0]
        self._print_record()

    def sources(self) -> None:
        if self.record is None:
            self.screen.say("Todavía no se ha mostrado ninguna ficha.")
        else:
            self.screen.say(f"Fuentes de {self.record['id']}: {self.record['fuente']}.")

    def save(self, name: str) -> None:
        """Guarda como texto todo lo mostrado; no pisa un archivo que ya exista."""
        if not name:
            self.screen.say("Falta el nombre: /guardar ARCHIVO")
            return
        header = f"TinyLlama Nurse, {datetime.now():%Y-%m-%d %H:%M}\n{self.identity}"
        try:
            with Path(name).expanduser().open("x", encoding="utf-8") as file:
                file.write("\n".join([header, "", *self.screen.log, ""]))
        except FileExistsError:
            self.screen.say(f"{name} ya existe; elegir otro nombre.")
        except OSError as error:
            self.screen.say(f"No se pudo guardar en {name}: {error.strerror}.")
        else:
            self.screen.say(f"Conversación guardada en {name}.")

    def change_number(self, text: str) -> None:
        number = terminal.parse_number(text)
        if number:
            self.number = number
            terminal.remember_number(number)
        elif text:
            known = ", ".join(terminal.COUNTRY_NUMBERS)
            self.screen.say(f"«{text}» no es un número ni uno de estos países: {known}.")
        self.screen.say(f"Número de emergencias: {self.number}.")

    def status(self) -> None:
        used = self.engine.count_tokens(self.history) if self.engine and self.history else 0
        limit = f"{used} de {self.engine.context} tokens" if self.engine else "sin modelo"
        self.screen.say(f"{self.identity}\nTurnos recordados: {len(self.history) // 2} ({limit}).")
        self.screen.say(f"Número de emergencias: {self.number}. Fichas: {len(self.index.records)}.")

    def converse(self) -> None:
        """Preguntas y órdenes hasta «salir» o el fin de la entrada."""
        self.screen.say(WELCOME)
        for line in terminal.read_questions(self.screen):
            if line.lower().lstrip("/") in ("salir", "exit", "quit"):
                break
            if line.startswith("/") or line.lower() in PLAIN_WORDS:
                self.command(line)
            else:
                self.answer(line)
        self.screen.say("Hasta luego.")


def _keep(pieces: Iterator[str], shown: list[str]) -> Iterator[str]:
    """Pasa los trozos apuntándolos, para no perderlos si se corta con Ctrl-C."""
    for piece in pieces:
        shown.append(piece)
        yield piece


def open_model(args: argparse.Namespace) -> tuple[Any, str]:
    """(motor, primera línea del chat). Con --records-only no se carga nada."""
    if args.records_only:
        return None, "TinyLlama Nurse: solo fichas verificadas, sin modelo."
    engine, reason = engines.open_engine(args.model, args.engine)
    return engine, f"TinyLlama Nurse: {engine.describe()}. Motor: {engine.label} ({reason})."


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = common.SpanishParser(__doc__)
    default = " (por defecto: %(default)s)"
    add, whole = parser.add, common.number(int, 1)
    add("--question", help="contesta esta pregunta y termina")
    add("--model", type=Path, default=common.MODEL_DIR, help="carpeta, .gguf o .zip" + default)
    kinds = ("auto", "transformers", "llama.cpp")
    add("--engine", choices=kinds, default="auto", help="auto, transformers o llama.cpp" + default)
    add("--records-only", action="store_true", help="contesta solo con las fichas, sin modelo")
    add("--data", type=Path, default=common.DATA_FILE, help="fichas verificadas" + default)
    add("--emergency-number", help="número o país; se recuerda (la primera vez, 112)")
    add("--temperature", type=common.number(float, 0.01, 2), default=common.TEMPERATURE,
        help="azar de cada palabra" + default)  # fmt: skip
    add("--top-p", type=common.number(float, 0.01, 1), default=common.TOP_P,
        help="parte probable entre la que se elige" + default)  # fmt: skip
    add("--max-new-tokens", type=whole, default=common.MAX_NEW_TOKENS,
        help="largo máximo de la respuesta" + default)  # fmt: skip
    add("--greedy", action="store_true", help="sin azar: siempre la palabra más probable")
    add("--seed", type=common.number(int, 0), help="semilla, para repetir una respuesta")
    args = parser.parse_args(argv)
    if args.question is not None and not args.question.strip():
        parser.error("--question está vacía")
    if args.emergency_number:
        number = terminal.parse_number(args.emergency_number)
        if number is None:
            known = ", ".join(terminal.COUNTRY_NUMBERS)
            parser.error(f"--emergency-number: no es un número ni uno de estos países: {known}")
        terminal.remember_number(number)
        args.emergency_number = number
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    records, _ = common.load_records(args.data)
    engine, identity = open_model(args)
    chat = Chat(engine, identity, safety.RecordIndex(records), args)
    chat.screen.say(identity)
    chat.screen.say(NOTICE.format(number=chat.number), "alarm")
    if args.question:
        chat.answer(args.question)
    else:
        chat.converse()
    return 0


if __name__ == "__main__":
    common.run_script(main)
