"""Which part of a run a process makes, as `--part` or its launcher says, and which card it takes. No Prefect here."""

import os
from collections.abc import Mapping

from t2i_core.config import Config
from t2i_core.errors import ConfigError
from t2i_core.planning.parts import Part

AUTO = "auto"
LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")


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
                f"part: the array has gaps ({count} tasks from {first} to {last}), so its numbers are no parts; submit "
                f"--array=0-{count - 1}: other parts than before do no harm, as only what is missing is made"
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
        raise ConfigError(["part: an indexed Job does not tell how many parts there are; write auto/COMPLETIONS"])
    if index >= int(total):
        raise ConfigError([f"part: JOB_COMPLETION_INDEX {index} is not in auto/{total}; write auto/COMPLETIONS"])
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
