"""The command line: mistakes are answered at once, then the flow runs; the exit code says how it ended."""

import sys
import threading
from pathlib import Path

from flows import show
from flows.arguments import CommandLine
from flows.command import ExitCode, command_name
from flows.commands import COMMANDS, run_command
from flows.preflight import check_at_once
from flows.running import refuse, run_flow
from flows.system_errors import as_users
from t2i_core.config import Config
from t2i_core.config_errors import HINTS
from t2i_core.errors import UserError
from t2i_core.models.listing import preset_table
from t2i_core.output.writable import check_hidden

HELP = """\
Turn a file of prompts into images and a manifest.

Without flags: the bundled example with the bundled demo model (64x64, any machine). Run the same command again after \
a crash, or after adding prompts: only what is missing is made.

Exit codes: 0 done, 3 done with more failures than --max-failures, 4 --verify found faults, 2 wrong use, 130 or 143 \
stopped, 1 a bug of this tool.

What diffusers and DataFlow-MM call an option is understood, too: --num-inference-steps, --num-images-per-prompt, \
--hf-model-name-or-path, --hf-cache-dir, --hf-local-dir, --first-entry-file-name.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the flow, or the command that the first argument names; return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _let_users_import_their_own()
    except UserError as error:
        return refuse(str(error))
    if arguments and arguments[0] in COMMANDS:
        return run_command(arguments[0], arguments[1:])
    if arguments[:1] == ["show"]:
        return show.main(arguments[1:])
    asked = None
    try:
        asked = command_line().parse(arguments)
        if asked is None:
            return ExitCode.OK
        config = asked.options
        if "list_models" in asked.flags:
            print(preset_table(config.cache_dir))
            return ExitCode.OK
        check_hidden(Path(config.output))
        check_at_once(config)
    except (UserError, OSError) as error:
        return refuse(str(as_users(error, asked.options.model_dump(exclude_unset=True) if asked else {})))
    values = config.model_dump(exclude_unset=True)
    return run_flow(
        "flows.text2image:text2image", values, verbose=asked.verbose, before=lambda own: _before_run(config, own=own)
    )


def command_line() -> CommandLine[Config]:
    """Return the command line of `text2image`."""
    return CommandLine(
        name=command_name(),
        usage="[FILE] [OPTIONS]",
        options=Config,
        help=HELP + _commands(),
        flags={"list_models": "Show the presets: repository, download, steps, size, licence."},
        hints=HINTS,
    )


def _commands() -> str:
    summaries = {"show": show.SUMMARY, **{name: command.summary for name, command in COMMANDS.items()}}
    return "".join(f"\n{command_name(name)}: {summary}\n" for name, summary in summaries.items())


def _let_users_import_their_own() -> None:
    """Let `--prepare` find modules in the current folder, behind everything that is installed.

    `python -m` puts that folder first anyway; the command `text2image` does not, so that it runs in a folder that has a
    `tasks.py` or a `flows` of its own.
    """
    import tasks  # noqa: F401 - an editable install is looked up last: once imported, it cannot be shadowed

    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise UserError("the current folder was deleted; change to another one") from None
    if here not in sys.path:
        sys.path.append(here)


def _before_run(config: Config, *, own: bool) -> None:
    """Get ready while Prefect's server starts, where it is the run's `own`."""
    if not own:
        return
    from flows.own_process import OwnProcess, start_early
    from t2i_core.storage.workspace import Workspace
    from tasks.process import import_engine
    from tasks.server import give_own_database

    if config.part:
        give_own_database()
    makes_images = config.has_one_device and not (config.dry_run or config.status)
    if makes_images and not Workspace(config.output).hidden.exists():
        # There is work for certain, and starting a server is mostly waiting: torch and diffusers come in meanwhile.
        if OwnProcess.serves(config):
            start_early()
        else:
            threading.Thread(target=import_engine).start()
