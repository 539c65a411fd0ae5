"""An existing Dask scheduler: whether it answers, and whether it has workers."""

import asyncio
import logging

from t2i_core.errors import ConfigError

# Of the whole conversation.
_ANSWER_SECONDS = 5.0


def scheduler_address(address: str) -> str:
    """Return the address with its protocol; TCP where none is written."""
    return address if "://" in address else f"tcp://{address}"


def check_dask_scheduler(address: str) -> int:
    """Return how many workers an existing scheduler has.

    Raises:
        ConfigError: where none answers, or it has no workers.
    """
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    full = scheduler_address(address)
    try:
        workers = asyncio.run(_count_workers(full))
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        reason = next(iter(str(error).splitlines()), f"nothing within {_ANSWER_SECONDS:.0f} s")
        fix = "start one with `dask scheduler`, or correct the address"
        raise ConfigError([f"dask_scheduler: no Dask scheduler answers at {full} ({reason}); {fix}"]) from None
    if not workers:
        fix = f"start one for each GPU with `dask worker {full} --nthreads 2 --memory-limit 0`"
        raise ConfigError([f"dask_scheduler: {full} has no workers; {fix}"])
    return workers


async def _count_workers(address: str) -> int:
    """Return how many workers the scheduler at `address` has; by its protocol, for a client takes longer to give up."""
    from distributed.comm import connect
    from distributed.security import Security

    async def ask() -> int:
        comm = await connect(address, timeout=_ANSWER_SECONDS, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "ncores", "reply": True})
            return len(await comm.read())
        finally:
            comm.abort()

    return await asyncio.wait_for(ask(), _ANSWER_SECONDS)
