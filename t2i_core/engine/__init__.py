"""The engine, the only package that imports torch, diffusers and transformers: it loads a pipeline and generates."""
