"""Parts of a run: which one this process is, what it says at its end, and how all of them stand."""

import logging
import os
from collections.abc import Iterable, Mapping

from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.outcomes import ended
from t2i_core.config import Config
from t2i_core.errors import ConfigError
from t2i_core.output.accounting import exceeds
from t2i_core.output.part_marks import PartMark, PartMarks, PartState
from t2i_core.planning.catalog import Catalog
from t2i_core.planning.parts import Counts, Part, count_parts

log = logging.getLogger(__name__)

AUTO = "auto"
LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")
REASONS_SHOWN = 5


def find_part(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """Return the part that `--part` names; for `auto`, what the launcher's variables say.

    Raises:
        ConfigError: no launcher is known from the environment, or it does not say how many parts there are.
    """
    if not text.startswith(AUTO):
        return Part.parse(text)
    _, _, total = text.partition("/")
    found = _from_torchrun(environment) or _from_slurm(environment) or _from_kubernetes(environment, total)
    if found is None:
        raise ConfigError(
            [
                f"part: {text} finds neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX nor torchrun's RANK in the "
                "environment; write part/parts, for example 3/64"
            ]
        )
    return found


def with_own_device(config: Config, environment: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration with the card of this process: of several processes on a machine, each takes its own."""
    from t2i_core.engine.device import card_of_rank

    rank = next((environment[name] for name in LOCAL_RANKS if environment.get(name, "").isdigit()), None)
    if rank is None or config.device != "auto" or not (config.part or "").startswith(AUTO):
        return config
    return config.model_copy(update={"device": card_of_rank(int(rank))})


def end_part(part: Part, catalog: Catalog, allowed: float) -> State[object]:
    """Say what a part has come to; return the state of its run. `allowed`: `max_failures`, of the part's images."""
    counts = count_parts(catalog, part.total)[part.number - 1]
    failures = catalog.index.errors | dict(catalog.errors)
    own = [reason for key, reason in failures.items() if part.has_key(key)]
    lines = [f"part      {part}: {_counts(counts)}"]
    lines += [f"failed    {reason}" for reason in list(dict.fromkeys(own))[:REASONS_SHOWN]]
    lines.append("next      when all parts are done, run the same command without --part: it writes the manifest")
    log.info("\n".join(lines))
    return ended(f"part {part}: {_counts(counts)}", too_many=exceeds(counts.failed, counts.images, allowed))


def show_status(catalog: Catalog) -> State[object]:
    """Say what of the data set is made, failed and missing, in all and by part; return the state of the run."""
    marks = PartMarks(catalog.workspace).latest()
    total = next(iter(marks)).total if marks else 1
    counts = count_parts(catalog, total)
    message = f"{catalog.plan.images} images: {_counts(_sum(counts))}"
    lines = [f"status    {message}"]
    if marks:
        done = sum(not part.missing and not part.failed for part in counts)
        lines.append(f"parts     {done} of {total} complete, as they were started last")
        lines += [
            f"part      {Part(number, total)}: {_counts(part)}; {_state(marks.get(Part(number, total)))}"
            for number, part in enumerate(counts, start=1)
            if part.missing or part.failed
        ]
    log.info("\n".join(lines))
    return Completed(message=message)


def _from_torchrun(environment: Mapping[str, str]) -> Part | None:
    return _part(environment, "RANK", "WORLD_SIZE")


def _from_slurm(environment: Mapping[str, str]) -> Part | None:
    """Return the part of an array's task, of the several tasks of a step, or of both."""
    task = _part(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return task
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    own, first, last, count = (_number(environment, name) for name in names)
    step = (last - first) // (count - 1) if count > 1 else 1
    if first + step * (count - 1) != last or (own - first) % step:
        raise ConfigError(
            [
                f"part: the array has gaps ({count} tasks from {first} to {last}), so its numbers are no parts; start "
                f"--array=0-{count - 1}: parts may be others than before, and only what is missing is made"
            ]
        )
    array = Part((own - first) // step + 1, count)
    if task is None:
        return array
    return Part((array.number - 1) * task.total + task.number, array.total * task.total)


def _from_kubernetes(environment: Mapping[str, str], total: str) -> Part | None:
    if "JOB_COMPLETION_INDEX" not in environment:
        return None
    index = _number(environment, "JOB_COMPLETION_INDEX")
    if not total:
        raise ConfigError(["part: an indexed Job does not tell how many there are; write auto/COMPLETIONS"])
    if index >= int(total):
        raise ConfigError([f"part: JOB_COMPLETION_INDEX is {index}, and auto/{total} has parts 0 to {int(total) - 1}"])
    return Part(index + 1, int(total))


def _part(environment: Mapping[str, str], index: str, total: str) -> Part | None:
    if index not in environment or total not in environment:
        return None
    return Part(_number(environment, index) + 1, _number(environment, total))


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not value.isdigit():
        raise ConfigError([f"part: {name} is {value!r} in the environment, not a number; write part/parts"])
    return int(value)


def _counts(counts: Counts) -> str:
    return f"{counts.made} made, {counts.failed} failed, {counts.missing} missing"


def _sum(counts: Iterable[Counts]) -> Counts:
    total = Counts()
    for part in counts:
        total = Counts(total.made + part.made, total.failed + part.failed, total.missing + part.missing)
    return total


def _state(mark: PartMark | None) -> str:
    if mark is None:
        return "never started"
    if mark.state is PartState.RUNNING:
        return f"running, or killed, on {mark.host} since {mark.time}"
    return f"{mark.state} on {mark.host} at {mark.time}"
