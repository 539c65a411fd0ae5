"""Thin Prefect tasks: a name, a cache policy, retries, one call into t2i_core."""
