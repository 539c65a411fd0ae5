"""The commands beside `text2image`: each is a flow over a finished output, and a module of `flows/` with its name."""

import importlib
import sys
from dataclasses import dataclass
from typing import Any

from flows.arguments import CommandLine
from flows.command import ExitCode, command_name
from flows.running import refuse, run_flow
from t2i_core.errors import UserError
from t2i_core.options.command import Options


@dataclass(frozen=True, slots=True)
class Command:
    """A command of `flows/<name>.py`: what it does, its arguments, and where its options and its flow are defined.

    `options`, `flow` and `check` are module:name; none is imported before it is asked for. `check` refuses options
    before a server is started; the flow does so again, for a deployment has no command line.
    """

    summary: str
    usage: str
    options: str
    flow: str
    check: str = ""


COMMANDS: dict[str, Command] = {
    "choose": Command(
        summary="Write down which images of a finished output are kept, and why the others are not: choice.csv.",
        usage="OUTPUT [OPTIONS]",
        options="t2i_core.options.choose:ChooseOptions",
        flow="flows.choose:choose",
        check="t2i_core.output.selection:check_options",
    ),
    "compare": Command(
        summary="Show several outputs over the same prompts side by side: one page, a column for each run.",
        usage="OUTPUT OUTPUT [OPTIONS]",
        options="t2i_core.options.compare:CompareOptions",
        flow="flows.compare:compare",
        check="t2i_core.reports.comparison:check_options",
    ),
    "export": Command(
        summary="Write the images of a finished output in the form that a trainer reads.",
        usage="OUTPUT --format FORMAT [OPTIONS]",
        options="t2i_core.options.export:ExportOptions",
        flow="flows.export:export",
        check="t2i_core.export.export:check_options",
    ),
    "gallery": Command(
        summary="Write pages that show the images of a finished output in a browser, and the report on them.",
        usage="OUTPUT [OPTIONS]",
        options="t2i_core.options.gallery:GalleryOptions",
        flow="flows.gallery:gallery",
        check="t2i_core.reports.gallery.write:check_options",
    ),
    "score": Command(
        summary="Score the images of a finished output: columns of its images.parquet. No score is computed twice.",
        usage="OUTPUT [OPTIONS]",
        options="t2i_core.options.score:ScoreOptions",
        flow="flows.score:score",
        check="t2i_core.scoring.built_in:check_options",
    ),
}


def main(name: str) -> int:
    """Run a command as `python -m flows.<name>`; return the exit code."""
    return run_command(name, sys.argv[1:])


def run_command(name: str, arguments: list[str]) -> int:
    """Run a command with its arguments; return the exit code."""
    command = COMMANDS[name]
    options_class: type[Options] = _named(command.options)
    line = CommandLine(command_name(name), command.usage, options_class, f"{command.summary}\n")
    try:
        asked = line.parse(arguments)
        if asked is not None and command.check:
            _named(command.check)(asked.options)
    except UserError as error:
        return refuse(str(error))
    if asked is None:
        return ExitCode.OK
    values = asked.options.model_dump(exclude_unset=True)
    return run_flow(command.flow, values, verbose=asked.verbose, before=lambda own: None)


def _named(name: str) -> Any:
    """Return what `module:name` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
