"""Prompts that the model's text encoders would cut or cannot read: said before anything is generated."""

import logging
from pathlib import Path

from flows.resolve import Resolved
from flows.workers import Workers
from t2i_core.engine.prompt_check import PROMPTS_CHECKED, check_prompts
from t2i_core.engine.tokens import TokenCounter
from t2i_core.errors import Stopped, shorten
from t2i_core.models.pipeline_files import INDEX
from t2i_core.models.weights import fetch_some
from t2i_core.planning.plan import Plan
from t2i_core.reports.prompt_lines import prompt_lines
from tasks.process import THIS_PROCESS, import_engine

log = logging.getLogger(__name__)

# More than these take some seconds, which are announced.
PROMPTS_SILENT = 10_000


def lines_about_prompts(resolved: Resolved, plan: Plan, plans: Path) -> list[str]:
    """Return a line for prompts that would be cut, and one for those that an encoder cannot read, if there are any.

    Only tokenizers are read. A run that generates counts again, with the tokenizers of the loaded pipeline.
    After a stop there is no line.
    """
    config, model = resolved.config, resolved.model
    small = [file.path for file in model.files if "tokenizer" in file.path or "processor" in file.path]
    if plan.prompts > PROMPTS_SILENT:
        log.info("prompts   counting the tokens of %s", f"{min(plan.prompts, PROMPTS_CHECKED):,}")
    try:
        folder = fetch_some(model, [INDEX, *small], cache_dir=config.cache_dir, local_dir=config.local_dir)
        found = check_prompts(plan, plans, TokenCounter.of_folder(folder), THIS_PROCESS.stop.is_set)
        return prompt_lines(found, resolved.preset)
    except Stopped:
        return []
    except Exception as error:  # of whatever library: this is advice, and no reason to end a run
        log.debug("the prompts cannot be checked", exc_info=True)
        return [f"prompts   not checked: {type(error).__name__}: {shorten(str(error))}"]


def warn_of_prompts(resolved: Resolved, plan: Plan, plans: Path, workers: Workers) -> None:
    """Say what `lines_about_prompts` returns; nothing after a stop."""
    if THIS_PROCESS.stop.is_set():
        return
    if not workers.apart:
        import_engine()  # which another thread may do now: its libraries are not to be met half-way
    for line in lines_about_prompts(resolved, plan, plans):
        log.warning(line)
