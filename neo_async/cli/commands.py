"""Commands and groups of commands: how their help is laid out, and how an error is shown.

typer reads the arguments; the words around them are ours. Its help and its errors change with every
release, its table of options breaks a list of choices in the middle of a word, and it shows a flag
as if it took a value.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from neo_async.base.text import shown
from neo_async.cli import output
from neo_async.errors import NeoError, UsageError

_INTERRUPTED = 130
_PROGRAM = "neo-async"
_DEBUG = "--debug"

_NEGATIVE = re.compile(r"-[0-9.]")
"""What the parser takes a negative number for: an option of one letter."""

# typer has a copy of click of its own, and names only one of its exceptions.
_WrongUsage: type[Exception] = typer.BadParameter.__bases__[0]


class Command(TyperCommand):
    """A command whose help names choices and flags in words."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *_usage_of(self.get_params(ctx))]

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        _write_usage(formatter, ctx.command_path, self.collect_usage_pieces(ctx))

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        _write_text(formatter, self.help or "")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_parameters(formatter, self.get_params(ctx))

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("as_csv") and ctx.params.get("as_json"):
            raise UsageError("--csv and --json exclude each other")
        return super().invoke(ctx)


class Group(TyperGroup):
    """A group of commands. An error is one line on stderr, and decides the exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            output.echo_text(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader has what it wants. The rest of the buffer is written to the null device.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return None

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        _write_text(formatter, self.help or "")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in commands:
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None) or "Commands"
                panels.setdefault(panel, []).append((name, _first_paragraph(command.help or "")))
        widest = max((len(name) for rows in panels.values() for name, _ in rows), default=0)
        for panel, rows in panels.items():
            with formatter.section(panel):
                _write_rows(formatter, rows, widest)
        _write_parameters(formatter, self.get_params(ctx))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        is_debug = _DEBUG in given
        if is_debug:
            given.remove(_DEBUG)
            _log_everything()
        try:
            code = super().main(
                given,
                prog_name or _PROGRAM,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except Exception as error:
            if is_debug and not isinstance(error, _WrongUsage):
                # Escaped: the text of an error may be the broker's.
                for line in traceback.format_exc().splitlines():
                    output.echo(line, err=True)
            sys.exit(_report(error))
        sys.exit(code if isinstance(code, int) else 0)


def new_group(**options: Any) -> typer.Typer:
    """Return an empty group of commands."""
    return typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )


# --- errors ---------------------------------------------------------------------------------------


def _report(error: Exception) -> int:
    """Print an error, and return the exit code."""
    if isinstance(error, _WrongUsage):
        _print_usage_error(error)
        return 2
    if isinstance(error, typer.Abort):  # Ctrl-C at a question, or the end of the input
        output.print_sentence("interrupted", err=True)
        return _INTERRUPTED
    if isinstance(error, NeoError):
        output.print_sentence(f"{_PROGRAM}: {error}", err=True)
        return 2 if isinstance(error, UsageError) else 1
    if isinstance(error, OSError):
        output.print_sentence(f"{_PROGRAM}: {error}", err=True)
        return 1
    output.print_sentence(f"{_PROGRAM}: unexpected {type(error).__name__}: {error}", err=True)
    output.print_sentence(
        f"The same command with {_DEBUG} shows where; please report it.", err=True
    )
    return 1


def _print_usage_error(error: Any) -> None:
    """Print one line for a value that is wrong, and how the command is called otherwise."""
    ctx, param = error.ctx, getattr(error, "param", None)
    is_missing = type(error).__name__ == "MissingParameter"
    is_negative = bool(_NEGATIVE.match(getattr(error, "option_name", "")))
    if is_negative:
        message = "a value must not be negative: it reads as an option"
    elif param is None:
        message = error.format_message()
    elif is_missing:
        message = f"{_name_of(param)} is missing" + (f": {param.help}" if param.help else "")
    else:
        message = f"{_name_of(param)} {_message_of(error)}"
    output.print_sentence(f"{_PROGRAM}: {message}", err=True)
    if ctx is not None and not is_negative and (param is None or is_missing):
        output.echo_text(f"{ctx.get_usage()}\n{ctx.command_path} --help explains it.", err=True)


def _message_of(error: Any) -> str:
    """Return what is wrong with a value. From typer 0.29 on, some messages are pydantic's, which
    name no value."""
    message = " ".join(error.message.split())
    if hasattr(error.__cause__, "errors"):
        value = error.__cause__.errors()[0]["input"]
        message = message.removeprefix("Value error, ").replace("Input should", "must")
        message = f"{value!r}: {message.partition(', unable')[0]}"
    return message


def _name_of(param: Any) -> str:
    if param.param_type_name == "option":
        return str(max(param.opts, key=len))
    return str(param.metavar or param.name.upper())


class _OneLine(logging.Formatter):
    """Log formatter that keeps untrusted text on one line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return shown(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        # The last line of a traceback is the error's text.
        return "\n".join(map(shown, super().formatException(ei).split("\n")))


if isinstance(logging.lastResort, logging.Handler):
    # It prints warnings of a program that has not set up logging, as these commands.
    logging.lastResort.setFormatter(_OneLine())


def _log_everything() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("neo_async")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


# --- help -----------------------------------------------------------------------------------------


def _usage_of(params: Iterable[Any]) -> Iterator[str]:
    """Return the arguments and the options that are needed, as they are written."""
    for param in params:
        if param.param_type_name == "argument":
            name = _name_of(param)
            name += "..." if param.nargs == -1 and " " not in name else ""
            yield name if param.required else f"[{name}]"
    for param in params:
        if param.param_type_name == "option" and param.required:
            yield " ".join((_name_of(param), _value_of(param)))


def _write_usage(formatter: Any, command: str, pieces: Sequence[str]) -> None:
    prefix = f"Usage: {command} "
    lines = [prefix.rstrip()]
    for piece in pieces:
        # A piece such as "--product PRODUCT" stays together.
        if len(lines[-1]) + 1 + len(piece) > formatter.width and lines[-1].strip():
            lines.append(" " * (len(prefix) - 1))
        lines[-1] += f" {piece}"
    formatter.write("\n".join(lines) + "\n")


def _write_rows(formatter: Any, rows: Iterable[tuple[str, str]], width: int) -> None:
    """Write names of at most this width, and beside each its explanation."""
    indent = " " * (width + 4)
    for name, text in rows:
        lines = _wrapped(text, max(20, formatter.width - len(indent)))
        formatter.write(f"  {name}".ljust(len(indent)) + f"\n{indent}".join(lines) + "\n")


def _wrapped(text: str, width: int) -> list[str]:
    """Break between words only: options and symbols have hyphens."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _write_text(formatter: Any, text: str) -> None:
    """Write paragraphs, and commands to copy in lines that are not broken."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        formatter.write_paragraph()
        if paragraph.startswith(f"{_PROGRAM} "):
            formatter.write(f"  {paragraph}\n")
        else:
            formatter.write(
                "\n".join(_wrapped(" ".join(paragraph.split()), formatter.width)) + "\n"
            )


def _write_parameters(formatter: Any, params: Iterable[Any]) -> None:
    visible = [param for param in params if not getattr(param, "hidden", False)]
    for heading, kind in (("Arguments", "argument"), ("Options", "option")):
        rows = [
            (_declaration(param), _explanation(param))
            for param in visible
            if param.param_type_name == kind
        ]
        if rows:
            with formatter.section(heading):
                _write_rows(formatter, rows, max(len(name) for name, _ in rows))


def _declaration(param: Any) -> str:
    if param.param_type_name == "argument":
        return _name_of(param)
    names = ", ".join(sorted(param.opts, key=len))
    return " ".join((names, _value_of(param))).strip()


def _value_of(param: Any) -> str:
    """Return what stands for the value of an option; nothing for a flag."""
    if param.is_flag:
        return ""
    return str(param.metavar or ("NUMBER" if type(param.default) in (int, float) else "TEXT"))


def _explanation(param: Any) -> str:
    notes = []
    if param.required and param.param_type_name == "option":
        notes.append("required")
    default = param.default
    if isinstance(default, (int, float, str)) and not isinstance(default, bool) and default != "":
        shown_default = f"{default:g}" if isinstance(default, float) else str(default)
        notes.append(f"default: {shown_default}")
    if param.envvar:
        notes.append(f"or {param.envvar}")
    return " ".join(filter(None, (param.help or "", f"[{'; '.join(notes)}]" if notes else "")))


def _first_paragraph(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
