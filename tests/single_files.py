"""Single-file checkpoints, made from pipelines: names of diffusers turned back into those of the models' authors."""

import re

import pytest
import torch
from safetensors.torch import save_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def stable_diffusion_tensors(pipeline):
    """The tensors of a Stable Diffusion pipeline in one file, by their original names."""
    return {
        **_renamed(pipeline.unet, unet_name(pipeline.unet), "model.diffusion_model."),
        **vae_tensors(pipeline.vae),
        **clip_tensors(pipeline.text_encoder, "cond_stage_model.transformer."),
    }


def stable_diffusion_xl_tensors(pipeline):
    """The tensors of an SDXL pipeline in one file, by their original names."""
    return {
        **_renamed(pipeline.unet, unet_name(pipeline.unet), "model.diffusion_model."),
        **vae_tensors(pipeline.vae),
        **clip_tensors(pipeline.text_encoder, "conditioner.embedders.0.transformer."),
        **open_clip_tensors(pipeline.text_encoder_2, "conditioner.embedders.1.model."),
    }


def save(tensors, path):
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, path)
    return str(path)


def unet_name(unet):
    """Return the function from a name of diffusers to the original one."""
    layers = unet.config.layers_per_block
    with_attention = [index for index, block in enumerate(unet.up_blocks) if hasattr(block, "attentions")]

    def original(name):
        for new, old in UNET_ENDS.items():
            if name.startswith(f"{new}."):
                return name.replace(new, old, 1)
        block = re.match(r"(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.*)", name)
        where, number, kind, index, rest = block.groups()
        rest = re.sub("^" + "|^".join(RESNET), lambda match: RESNET[match[0]], rest) if kind == "resnets" else rest
        if where == "mid_block":
            return f"middle_block.{2 * int(index) if kind == 'resnets' else 1}.{rest}"
        first = int(number) * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + layers + 1}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"output_blocks.{first + layers}.{2 if int(number) in with_attention else 1}.{rest}"
        at = first + int(index) + (1 if where == "down_blocks" else 0)
        side = "input_blocks" if where == "down_blocks" else "output_blocks"
        return f"{side}.{at}.{0 if kind == 'resnets' else 1}.{rest}"

    return original


def vae_tensors(vae, prefix="first_stage_model."):
    levels = len(vae.config.block_out_channels)

    def original(name):
        name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", name)
        name = re.sub(r"(up\.\d+)\.resnets\.(\d+)", r"\1.block.\2", name)
        name = re.sub(r"(up\.\d+)\.upsamplers\.0", r"\1.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d+)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1")
            for new, old in ATTENTION.items():
                name = name.replace(f".{new}.", f".{old}.")
        return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")

    def shaped(name, tensor):
        is_linear = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        return tensor[:, :, None, None] if is_linear else tensor

    return {prefix + original(name): shaped(original(name), tensor) for name, tensor in vae.state_dict().items()}


def clip_tensors(encoder, prefix):
    return {
        f"{prefix}text_model.{name.removeprefix('text_model.')}": tensor
        for name, tensor in encoder.state_dict().items()
        if name != "text_projection.weight"
    }


def open_clip_tensors(encoder, prefix):
    weights, tensors = encoder.state_dict(), {}
    for name, tensor in weights.items():
        plain = name.removeprefix("text_model.")
        if plain == "text_projection.weight":
            tensors["text_projection"] = tensor.T
        elif plain.startswith("embeddings."):
            is_token = "token_embedding" in plain
            tensors["token_embedding.weight" if is_token else "positional_embedding"] = tensor
        elif plain.startswith("final_layer_norm"):
            tensors[plain.replace("final_layer_norm", "ln_final")] = tensor
        elif "q_proj" in plain:
            parts = [weights[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            block = plain.replace("encoder.layers", "transformer.resblocks")
            tensors[re.sub(r"self_attn\.q_proj\.(\w+)", r"attn.in_proj_\1", block)] = torch.cat(parts)
        elif not re.search("[kv]_proj", plain):
            block = plain.replace("encoder.layers", "transformer.resblocks")
            for new, old in OPEN_CLIP.items():
                block = block.replace(new, old)
            tensors[block] = tensor
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _renamed(part, original, prefix):
    return {prefix + original(name): tensor for name, tensor in part.state_dict().items()}


SD3_ENDS = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "proj_out": "final_layer.linear",
}
SD3_BLOCK = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}


def sd3_tensors(transformer, prefix="model.diffusion_model."):
    """The tensors of an SD3 transformer without norms of queries and keys, by their original names."""
    weights, tensors = transformer.state_dict(), {}
    last = f"transformer_blocks.{transformer.config.num_layers - 1}.norm1_context."
    for name, tensor in weights.items():
        # The order of scale and shift is another one in the last block and behind it.
        value = torch.cat(tensor.chunk(2)[::-1]) if name.startswith((last, "norm_out.")) else tensor
        block = re.match(r"transformer_blocks\.(\d+)\.(.*)\.(weight|bias)", name)
        if name.startswith("norm_out.linear."):
            tensors[name.replace("norm_out.linear", "final_layer.adaLN_modulation.1")] = value
        elif block is None:
            end = next(end for end in SD3_ENDS if name.startswith(end))
            tensors[name.replace(end, SD3_ENDS[end], 1)] = value
        elif block[2] in SD3_BLOCK:
            tensors[f"joint_blocks.{block[1]}.{SD3_BLOCK[block[2]]}.{block[3]}"] = value
        elif block[2] in ("attn.to_q", "attn.add_q_proj"):
            side = "x_block" if block[2] == "attn.to_q" else "context_block"
            parts = [weights[name.replace("_q", f"_{letter}")] for letter in "qkv"]
            tensors[f"joint_blocks.{block[1]}.{side}.attn.qkv.{block[3]}"] = torch.cat(parts)
    return {prefix + name: tensor for name, tensor in tensors.items()}


def save_gguf(tensors, path, quantized="Q8_0"):
    """Write a GGUF file, with the matrices whose rows are blocks of 32 quantized."""
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[quantized]
    writer = gguf.GGUFWriter(str(path), "flux")
    for name, tensor in tensors.items():
        array = tensor.float().numpy()
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)
