"""`ModelOptions`: the part of the configuration that says which model, and what is loaded of it."""

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, Field

from t2i_core.options.values import DEFAULT_MODEL, DEMO, EXAMPLE, Key


class ModelOptions(BaseModel):
    """Options of the model: which one, and how it is loaded."""

    heading: ClassVar = "Model"

    model: str = Field(
        default_factory=lambda data: DEMO if data.get("dataset") == EXAMPLE else DEFAULT_MODEL,
        min_length=1,
        description="Preset name, hub id, folder, or a .safetensors file of a whole model. Default: flux-dev; for "
        "the bundled example 'demo', which knows fewer than 200 English words.",
    )
    base: Key | None = Field(
        None,
        description="With a file as the model: preset, hub id or folder of the pipeline that it belongs to, for its "
        "configuration and for what the file lacks. Default: what diffusers takes it for.",
    )
    transformer: Key | None = Field(
        None,
        description="Transformer or unet in place of the model's own: a .safetensors or .gguf file, a folder, or on "
        "the hub owner/name, owner/name/folder, owner/name/file.gguf.",
    )
    revision: Key | None = Field(None, description="Branch, tag or commit of a hub model.")
    variant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+$")] | None = Field(
        None, description="Variant of the weights, where a part of the model has it: fp16 for *.fp16.safetensors."
    )
    cache_dir: Key | None = Field(None, description="Hub cache folder. Default: the hub's own.")
    local_dir: Key | None = Field(None, description="Folder for plain copies of hub models, one subfolder a model.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Number format of the weights; auto: the preset's, else that of the weights."
    )
    prepare: Annotated[str, Field(pattern=r"^(.+\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*$")] | None = Field(
        None,
        description="Your function, module:function or file.py:function, called with the loaded pipeline; part of an "
        "image's identity.",
    )
    lora: list[Key] = Field([], description="LoRA files or hub ids, with an optional weight: style.safetensors:0.8")
    lora_partial: bool = Field(False, description="Use a LoRA even if the model has no place for some of its weights.")
