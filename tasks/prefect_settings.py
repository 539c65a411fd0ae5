"""Prefect set up in code, so that it counts in every folder. A user's own settings win."""

import os

import prefect.context
from prefect.settings import get_current_settings

DEFAULTS = {
    # On a fresh home or a slow disk the ephemeral server needs longer than Prefect's 20 s.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Of the server that a run starts for itself.
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
}


def apply_defaults() -> None:
    """Set what the user has not set: neither in the environment, a profile, nor a prefect.toml or pyproject.toml.

    The environment carries them to the server that Prefect starts as a subprocess.
    """
    chosen = get_current_settings().to_environment_variables(exclude_unset=True)
    for name, value in DEFAULTS.items():
        if name not in chosen:
            os.environ.setdefault(name, value)
    prefect.context.refresh_global_settings_context()
