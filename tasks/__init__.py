"""Thin Prefect tasks: a name, a cache policy, retries, one call into t2i_core."""

from tasks.prefect_settings import apply_defaults

apply_defaults()
