"""`ServerOptions`: what every command has to say about Prefect's server."""

from typing import ClassVar

from pydantic import BaseModel, Field

# Longer than Prefect's server can be silent where two of its own writers wait for each other: SQLite lets a writer wait
# for 60 s, and the other one may need that very thread (seen with eight parts that started at the same moment).
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
