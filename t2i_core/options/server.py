"""`ServerOptions`: what every command has to say about Prefect's server."""

from typing import ClassVar

from pydantic import BaseModel, Field

SERVER_WAIT = 60.0


class ServerOptions(BaseModel):
    """Options about Prefect's server."""

    heading: ClassVar[str] = "Prefect"

    server_wait: float = Field(
        SERVER_WAIT,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that a run waits for Prefect's server, in all, while it does not answer.",
    )
