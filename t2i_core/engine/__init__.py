"""The part that needs torch and diffusers: load a pipeline, call it on a batch."""

import os

# Before torch is imported, unless the user has chosen: its waiting threads spin otherwise, and beside any other work on
# the machine a model on the CPU then takes ten times as long (measured on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import transformers

# Here, before any module of the engine imports diffusers: that makes transformers warn of packages nothing here uses.
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
