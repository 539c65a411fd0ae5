"""The part that needs torch and diffusers: load a pipeline, call it on a batch."""
