"""Which part of a run a process makes, as `--part` or its launcher says, and which card it takes. No Prefect here."""

import os
import re
import sys
from collections.abc import Mapping

from t2i_core.config import Config
from t2i_core.errors import ConfigError
from t2i_core.planning.parts import Part

AUTO = "auto"
LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")


def find_part(text: str, environment: Mapping[str, str] = os.environ) -> Part:
    """Return the part that `--part` names; for `auto`, what the launchers' variables say.

    A launcher that starts jobs, a Slurm array or an indexed Job, and one that starts several processes in each of them,
    torchrun or srun, are taken together.

    Raises:
        ConfigError: no launcher is known from the environment, or it does not say how many parts there are, or the
            variables contradict each other.
    """
    if not text.startswith(AUTO):
        return Part.parse(text)
    _, _, total = text.partition("/")
    rank = _part(environment, "RANK", "WORLD_SIZE")
    by_torchrun = "LOCAL_WORLD_SIZE" in environment
    # On so many machines torchrun started the processes that it counts.
    machines = rank.total // max(1, _count(environment, "LOCAL_WORLD_SIZE")) if rank and by_torchrun else 1
    task = None if machines > 1 else _task(environment)
    array = None if machines > _count(environment, "SLURM_JOB_NUM_NODES") else _from_array(environment)
    if rank and not by_torchrun and task and rank.total == task.total:
        rank = None  # the user's own `RANK=$SLURM_PROCID`
    if rank and not by_torchrun and array and rank.total == array.total > 1:
        raise ConfigError(
            [f"part: RANK and the array both count {rank.total} processes; unset RANK, or write part/parts"]
        )
    job = array or (None if machines > 1 else _from_kubernetes(environment, total, counted=rank is not None))
    found = [part for part in (job, task, rank) if part is not None]
    if not found:
        raise ConfigError(
            [
                f"part: {text} finds neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX nor torchrun's RANK in the "
                "environment; write part/parts, for example 3/64"
            ]
        )
    part = Part(1, 1)
    for inner in found:
        part = Part((part.number - 1) * inner.total + inner.number, part.total * inner.total)
    if total and int(total) not in (found[0].total, part.total, machines):
        raise ConfigError([f"part: {text}, and the launcher started {part.total}; write auto"])
    return part


def check_launcher(config: Config, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse `auto` without a launcher that says which part, and processes that would all make the same images.

    Nor may processes of one machine use the same cards.

    Raises:
        ConfigError: likewise.
    """
    ranks = _count(environment, "WORLD_SIZE") if environment.get("LOCAL_WORLD_SIZE") else 1
    if config.part is not None:
        find_part(config.part, environment)
    elif ranks > 1 and config.needs_device:
        raise ConfigError(
            [f"part: torchrun starts {ranks} processes, and each would make all images; write --part auto"]
        )
    if config.device == "cpu" or not config.needs_device:
        return
    launcher, processes = _processes_here(environment)
    if processes == 1:
        return
    if not config.has_one_device:
        raise ConfigError(
            [
                f"workers: {launcher} starts {processes} processes on this machine, and each would use all cards that "
                "it sees; leave workers out, or start one process a machine"
            ]
        )
    if environment.get("CUDA_VISIBLE_DEVICES", "").count("MIG-") > 1:
        raise ConfigError(
            [
                f"device: {launcher} starts {processes} processes on this machine, and CUDA_VISIBLE_DEVICES names "
                "several slices (MIG), of which each would use the first; give each process its own"
            ]
        )


def with_own_device(config: Config, environment: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration with the card of this process: of several processes on a machine, each takes its own.

    Where a process has several workers, these have the cards that it sees.
    """
    rank = next((environment[name] for name in LOCAL_RANKS if environment.get(name, "").isdigit()), None)
    if rank is None or not config.has_one_device or config.device not in ("auto", "cuda", "xpu"):
        return config
    from t2i_core.engine.device import card_of_rank

    own = card_of_rank(config.device, int(rank))
    return config if own == "cpu" else config.model_copy(update={"device": own})


def _task(environment: Mapping[str, str]) -> Part | None:
    """Return the part of a task that srun started; None in a terminal that srun opened, which is one of its tasks."""
    return None if _is_terminal(environment) else _part(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS")


def _is_terminal(environment: Mapping[str, str]) -> bool:
    return "SLURM_PTY_PORT" in environment and sys.stdin is not None and sys.stdin.isatty()


def _processes_here(environment: Mapping[str, str]) -> tuple[str, int]:
    """Return the launcher that started several processes on this machine that see the same cards, and how many."""
    local = environment.get("LOCAL_WORLD_SIZE", "")
    if local.isdigit() and int(local) > 1:
        return "torchrun", int(local)
    has_own = "SLURM_GPUS_PER_TASK" in environment or "gpu" in environment.get("SLURM_TRES_PER_TASK", "")
    if _is_terminal(environment) or has_own:
        return "", 1
    # By node, in runs of equal numbers: 4(x2),3
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", ""))
    tasks = [int(count) for count, nodes in runs for _ in range(int(nodes or 1))]
    node = environment.get("SLURM_NODEID", "0")
    return "srun", tasks[int(node)] if node.isdigit() and int(node) < len(tasks) else 1


def _from_array(environment: Mapping[str, str]) -> Part | None:
    """Return the part of a Slurm array's task."""
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT")
    own, first, last, count = (_number(environment, name) for name in names)
    step = (last - first) // (count - 1) if count > 1 else 1
    if count < 1 or first + step * (count - 1) != last or own not in range(first, last + 1, max(1, step)):
        raise ConfigError(
            [
                f"part: the array has gaps (task {own}, {count} tasks from {first} to {last}), so its numbers are no "
                f"parts; submit --array=0-{max(1, count) - 1}: other parts than before do no harm, as only what is "
                "missing is made"
            ]
        )
    return Part((own - first) // step + 1, count)


def _from_kubernetes(environment: Mapping[str, str], total: str, *, counted: bool) -> Part | None:
    """Return the part of a Pod of an indexed Job; None for one Pod in which torchrun counts, as `counted` says."""
    if "JOB_COMPLETION_INDEX" not in environment:
        return None
    index = _number(environment, "JOB_COMPLETION_INDEX")
    if not total and counted and index == 0:
        return None
    if not total:
        raise ConfigError(["part: an indexed Job does not tell how many parts there are; write auto/COMPLETIONS"])
    if index >= int(total):
        raise ConfigError([f"part: JOB_COMPLETION_INDEX {index} is not in auto/{total}; write auto/COMPLETIONS"])
    return Part(index + 1, int(total))


def _part(environment: Mapping[str, str], index: str, total: str) -> Part | None:
    if index not in environment or total not in environment:
        return None
    number, count = _number(environment, index), _number(environment, total)
    if number >= count:
        raise ConfigError([f"part: {index} is {number} and {total} is {count} in the environment; write part/parts"])
    return Part(number + 1, count)


def _count(environment: Mapping[str, str], name: str) -> int:
    return _number(environment, name) if name in environment else 1


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    if not value.isdigit():
        raise ConfigError([f"part: {name} is {value!r} in the environment, not a number; write part/parts"])
    return int(value)
