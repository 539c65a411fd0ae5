"""`ServerOptions`: what every command has to say about Prefect's server."""

from typing import ClassVar

from pydantic import BaseModel, Field

# Longer than Prefect's server on SQLite can be silent: 60 s. So long a writer waits for another one. Meanwhile Python's
# garbage collection, in the thread that answers all requests, may wait for the connection of the first writer; and the
# other one needs that thread to end (seen in four of some thirty starts of eight parts at the same moment).
SERVER_WAIT = 90.0


class ServerOptions(BaseModel):
    """Options about Prefect's server."""

    heading: ClassVar[str] = "Prefect"

    server_wait: float = Field(
        SERVER_WAIT,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that a run waits for Prefect's server, in all, while it does not answer.",
    )
