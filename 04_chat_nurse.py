"""Paso 4: conversa en la terminal con TinyLlama Nurse. Es el único que se vuelve a ejecutar.

Uso:     python 04_chat_nurse.py
         python 04_chat_nurse.py --question "¿Qué hago ante una quemadura?"
         python 04_chat_nurse.py --records-only         (solo fichas verificadas, sin modelo)
Lee:     model_nurse_final/ o su .gguf (pasos 2 y 3) y los registros verificados.
Escribe: nada, salvo lo que pida /guardar y el número de emergencias que se elija.
Tarda:   unos segundos en arrancar; con GGUF, decenas de tokens por segundo en una CPU.
No hace: no diagnostica, no receta, no da dosis y no sustituye a un profesional ni al 112.

Orden de cada respuesta: aviso de urgencia (lo decide el código, antes que el modelo), respuesta
del modelo y ficha verificada que mejor contesta, entera si el modelo no dice lo mismo.
"""

import argparse
from collections.abc import Iterator
from contextlib import closing
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
HELP = """/ayuda: este aviso y esta lista.
/nuevo: olvida la conversación (también «nuevo»).
/repetir: vuelve a contestar la última pregunta.
/ficha N: muestra la ficha verificada N.
/fuentes: fuentes de la última ficha mostrada.
/guardar ARCHIVO: guarda la conversación como texto.
/numero N: cambia el número de emergencias (número o país) y lo recuerda.
/estado: modelo, motor y memoria de la conversación.
/salir: termina (también «salir», «exit» o «quit»).
Ctrl-C detiene una respuesta sin perder la conversación."""
EXIT_WORDS = ("salir", "exit", "quit")  # estas y «nuevo» valen también sin barra


class Chat:
    """Una conversación: motor (None con solo fichas), fichas verificadas e historia."""

    def __init__(self, engine: Any, identity: str, records: list, args: argparse.Namespace) -> None:
        self.engine, self.identity = engine, identity
        self.index = safety.RecordIndex(records)
        self.index.search("hola", 1)  # compila las reglas ahora, no con la primera urgencia
        self.records = {record["id"]: record for record in records}
        length = min(args.max_new_tokens, engine.context // 2) if engine else args.max_new_tokens
        heat = 0.0 if args.greedy else args.temperature
        self.sampling = engines.Sampling(heat, args.top_p, length, args.seed)
        self.number = args.emergency_number or terminal.remembered_number()
        self.screen, self.history = terminal.Screen(), []
        self.question: str | None = None
        self.record: common.Record | None = None  # la última ficha mostrada o citada
        self.screen.say(identity)
        self.screen.say(self.notice(), "notice")
        if args.emergency_number:
            self._remember_number()

    def answer(self, question: str) -> int:
        """Aviso de urgencia, respuesta y ficha, en ese orden. Devuelve el código de salida."""
        self.question = question = common.clean_question(terminal.printable(question))
        verdict = safety.assess(question, self.number)
        if verdict.notice:
            self.screen.say(f"EMERGENCIA: {verdict.notice}", "alarm")
        text, code = None, 0
        if verdict.limit:
            self.screen.say(f"Enfermero: {verdict.limit}")
        elif self.engine:
            text, code = self._generate({"role": "user", "content": question})
        self._show_closest(question, text, limited=verdict.limit is not None)
        return code

    def _generate(self, turn: common.Message) -> tuple[str | None, int]:
        """(respuesta entera o None, código). Pase lo que pase, después se muestra la ficha."""
        shown: list[str] = []
        code = 0
        try:
            if not self._make_room(turn):
                self.screen.say("La pregunta no cabe en la memoria del modelo: resumirla.")
                return None, 1
            with closing(self.engine.stream([*self.history, turn], self.sampling)) as pieces:
                self.screen.stream("Enfermero: ", _keep(pieces, shown))
        except KeyboardInterrupt:
            self.screen.say("(respuesta detenida)")
            code = 130
        except Exception as error:  # un motor puede fallar de cualquier modo; la ficha no se pierde
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            self.screen.say(f"El modelo ha fallado y su respuesta no vale: {reason}")
            return None, 1
        text = "".join(shown).strip()
        if text:
            self.history += [turn, {"role": "assistant", "content": text}]
        elif not code:
            self.screen.say("El modelo no ha contestado nada.")
        return (None if code else text or None), code

    def _make_room(self, turn: common.Message) -> bool:
        """Olvida los turnos más antiguos hasta que quepan pregunta y respuesta."""
        room = self.engine.context - self.sampling.max_new_tokens
        while self.engine.count_tokens([*self.history, turn]) > room:
            if not self.history:
                return False
            del self.history[:2]
        return True

    def _show_closest(self, question: str, text: str | None, limited: bool) -> None:
        """La ficha más cercana: entera si el modelo calla o difiere, citada si dice lo mismo."""
        hits = [hit for hit in self.index.search(question, 1) if hit.close]
        if not hits:
            return self.screen.say("Ninguna ficha verificada trata esta pregunta.", "record")
        record = hits[0].record
        if limited and record["estilo"] == "limite":
            return  # el límite ya está dicho
        self.record = record
        reasons = safety.compare(text, record) if text else []
        if text and not reasons:
            source = f"{record['id']} ({record['fuente']})"
            return self.screen.say(f"Coincide con la ficha verificada {source}.", "record")
        if reasons:
            self.screen.say(f"El modelo no dice lo mismo que la ficha: {'; '.join(reasons)}.")
        self._print_record(record)

    def _print_record(self, record: common.Record) -> None:
        title = f"Ficha verificada {record['id']}: {common.question_of(record)}"
        self.screen.say(f"{title}\n{record['output']}\nFuente: {record['fuente']}.", "record")

    def command(self, line: str) -> None:
        """Ejecuta una orden, con barra o sin ella."""
        name, _, rest = line.lstrip("/ ").partition(" ")
        rest = rest.strip(" \"'")
        actions = {
            "ayuda": lambda: self.screen.say(f"{self.notice()}\n{HELP}"),
            "nuevo": self.forget,
            "repetir": self.repeat,
            "ficha": lambda: self.show(rest),
            "fuentes": self.sources,
            "guardar": lambda: self.screen.say(self.screen.save(rest)),
            "numero": lambda: self.change_number(rest),
            "estado": self.status,
        }
        unknown = f"No conozco la orden /{name}. Ver /ayuda."
        actions.get(terminal.fold(name), lambda: self.screen.say(unknown))()

    def notice(self) -> str:
        return NOTICE.format(number=self.number)

    def forget(self) -> None:
        self.history, self.question, self.record = [], None, None
        self.screen.say("Conversación nueva.")

    def repeat(self) -> None:
        if self.question is None:
            return self.screen.say("Todavía no hay ninguna pregunta que repetir.")
        if self.history and self.history[-2]["content"] == self.question:
            del self.history[-2:]
        self.screen.say(f"Pregunta: {self.question}")
        self.answer(self.question)

    def show(self, text: str) -> None:
        record = self.records.get(f"PA-{text.upper().removeprefix('PA-').zfill(4)}")
        if record is None:
            return self.screen.say(f"No hay ficha «{text}». Escribir su número, como /ficha 12.")
        self.record = record
        self._print_record(record)

    def sources(self) -> None:
        if self.record is None:
            return self.screen.say("Todavía no se ha mostrado ninguna ficha.")
        self.screen.say(f"Fuentes de {self.record['id']}: {self.record['fuente']}.")

    def change_number(self, text: str) -> None:
        try:
            self.number = terminal.parse_number(text) if text else self.number
        except ValueError as error:
            self.screen.say(f"{error}.")
        else:
            self._remember_number()
        self.screen.say(f"Número de emergencias: {self.number}.")

    def _remember_number(self) -> None:
        if not terminal.remember_number(self.number):
            self.screen.say("No se pudo guardar el número: vale solo para esta conversación.")

    def status(self) -> None:
        memory = "sin modelo"
        if self.engine:
            used = self.engine.count_tokens(self.history) if self.history else 0
            memory = f"{used} de {self.engine.context} tokens"
        self.screen.say(f"{self.identity}\nTurnos recordados: {len(self.history) // 2} ({memory}).")
        self.screen.say(f"Número de emergencias: {self.number}. Fichas: {len(self.records)}.")

    def converse(self) -> int:
        """Preguntas y órdenes hasta «salir» o el fin de la entrada; 130 con Ctrl-C."""
        self.screen.say(WELCOME)
        try:
            for line in terminal.read_questions(self.screen):
                word = terminal.fold(line.lstrip("/ "))
                if word in EXIT_WORDS:
                    break
                self._attend(line, is_command=line.startswith("/") or word == "nuevo")
            return 0
        except KeyboardInterrupt:
            return 130
        finally:
            self.screen.say("Hasta luego.")

    def _attend(self, line: str, is_command: bool) -> None:
        """Una línea de la persona; ni un fallo del motor ni Ctrl-C terminan la conversación."""
        try:
            self.command(line) if is_command else self.answer(line)
        except KeyboardInterrupt:
            self.screen.say("(detenido)")
        except common.NurseError as error:
            self.screen.say(f"Error: {error}")


def _keep(pieces: Iterator[str], shown: list[str]) -> Iterator[str]:
    """Pasa los trozos apuntándolos, para no perderlos si se corta con Ctrl-C."""
    for piece in pieces:
        shown.append(piece)
        yield piece


def load_verified(path: Path) -> list[common.Record]:
    """Las fichas. Un registro sin procedencia sirve para entrenar, no para decir «verificada»."""
    records, _ = common.load_records(path)
    for record in records:
        if not (record.get("id") and record.get("fuente") and record.get("estilo")):
            common.fail(f"{path.name}, línea {record['line']}: falta id, fuente o estilo (--data).")
    return records


def open_model(args: argparse.Namespace) -> tuple[Any, str]:
    """(motor, primera línea del chat). Con --records-only no se carga nada."""
    if args.records_only:
        return None, "TinyLlama Nurse: solo fichas verificadas, sin modelo."
    try:
        engine, reason = engines.open_engine(args.model, args.engine)
    except common.NurseError as error:
        common.fail(f"{str(error).rstrip('.')}. Sin modelo: python 04_chat_nurse.py --records-only")
    return engine, f"TinyLlama Nurse: {engine.describe()}. Motor: {engine.label} ({reason})."


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = common.SpanishParser(__doc__)
    default = " (por defecto: %(default)s)"
    add = parser.add
    add("--question", help="contesta esta pregunta y termina")
    add("--model", type=Path, default=common.MODEL_DIR, help="carpeta, .gguf o .zip" + default)
    add("--engine", choices=("auto", "transformers", "llama.cpp"), default="auto",
        help="programa que genera el texto" + default)  # fmt: skip
    add("--records-only", action="store_true", help="contesta solo con las fichas, sin modelo")
    add("--data", type=Path, default=common.DATA_FILE, help="fichas verificadas" + default)
    add("--emergency-number", help="número o país; se recuerda (la primera vez, 112)")
    add("--temperature", type=common.number(float, 0.01, 2), default=common.TEMPERATURE,
        help="azar de cada palabra" + default)  # fmt: skip
    add("--top-p", type=common.number(float, 0.01, 1), default=common.TOP_P,
        help="parte probable entre la que se elige" + default)  # fmt: skip
    add("--max-new-tokens", type=common.number(int, 1), default=common.MAX_NEW_TOKENS,
        help="largo máximo de la respuesta" + default)  # fmt: skip
    add("--greedy", action="store_true", help="sin azar: siempre la palabra más probable")
    add("--seed", type=common.number(int, 0), help="semilla, para repetir una respuesta")
    args = parser.parse_args(argv)
    if args.question is not None and not terminal.printable(args.question).strip():
        parser.error("--question está vacía")
    try:
        if args.emergency_number is not None:
            args.emergency_number = terminal.parse_number(args.emergency_number)
    except ValueError as error:
        parser.error(f"--emergency-number: {error}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    records = load_verified(args.data)
    chat = Chat(*open_model(args), records, args)
    return chat.answer(args.question) if args.question else chat.converse()


if __name__ == "__main__":
    common.run_script(main)
