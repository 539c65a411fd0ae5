"""Small made-up files of a pipeline, for tests that never load them."""

import json


def model_files(seed: int = 0, pipeline_class: str = "FluxPipeline") -> dict[str, bytes]:
    """Return the files of a pipeline, {relative path: content}; another `seed` gives other weights of the same size."""

    def weights(name: str) -> bytes:
        return (f"{name} {seed} " * 400).encode()

    index = {
        "_class_name": pipeline_class,
        "_diffusers_version": "0.42.1",
        "force_zeros": True,
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    shards = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    return {
        "model_index.json": json.dumps(index).encode(),
        "scheduler/scheduler_config.json": b'{"shift": 3.0}',
        "text_encoder/config.json": b'{"text": 1}',
        "text_encoder/model.safetensors": weights("text"),
        "tokenizer/tokenizer_config.json": b'{"tokens": 1}',
        "tokenizer/tokenizer.json": weights("tokenizer"),
        "tokenizer/merges.txt": b"a b\n",
        "tokenizer/chat_template.jinja": b"{{ x }}",
        "transformer/config.json": b'{"guidance_embeds": true}',
        "transformer/diffusion_pytorch_model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": shards[0], "b": shards[1]}}
        ).encode(),
        f"transformer/{shards[0]}": weights("one"),
        f"transformer/{shards[1]}": weights("two"),
        "vae/config.json": b'{"block_out_channels": [1, 2]}',
        "vae/diffusion_pytorch_model.safetensors": weights("vae"),
    }


def clutter() -> dict[str, bytes]:
    """Return files of a repository that the pipeline does not load."""
    return {
        "README.md": b"hello",
        "picture.png": b"png",
        "flux.safetensors": b"single file" * 100,
        "vae/README.md": b"x",
        "vae/diffusion_pytorch_model.fp16.safetensors": b"half",
        "vae/diffusion_pytorch_model.bin": b"pickle",
        "text_encoder/flax_model.msgpack": b"flax",
        "text_encoder/model.onnx": b"onnx",
        "text_encoder/pytorch_model.bin.index.json": b"{}",
        "image_encoder/config.json": b"{}",
        "transformer/diffusion_pytorch_model.safetensors.index.fp16.json": b"{}",
        "samples/deep/a.json": b"{}",
    }
