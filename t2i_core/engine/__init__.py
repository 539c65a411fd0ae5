"""The part that needs torch and diffusers: load a pipeline, call it on a batch."""

import transformers

# Here, before any module of the engine imports diffusers: that makes transformers warn of packages nothing here uses.
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
