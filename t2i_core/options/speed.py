"""`SpeedOptions`: the part of the configuration that trades memory, speed and exactness."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

SCHEDULER = r"^((tcp|tls)://)?([^\s/:\[\]]+|\[[0-9a-fA-F:]+\]):\d{1,5}/?$"

# The distributions of kernels for attention that torch does not have; their versions decide pixels.
ATTENTION_PACKAGES = {"flash2": "flash-attn", "flash3": "flash-attn-3", "sage": "sageattention"}


class SpeedOptions(BaseModel):
    """Options of speed and memory. None is on by default, but that staged text encoders may be chosen for FLUX."""

    heading: ClassVar = "Speed and memory"

    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        1,
        description="Processes that generate, each with a GPU of its own; auto: one for each GPU of this machine; 0: "
        "the run's own process.",
    )
    dask_scheduler: Annotated[str, Field(pattern=SCHEDULER)] | None = Field(
        None,
        description="Generate on the workers of an existing Dask scheduler, HOST:PORT, on whatever machines they are.",
    )
    quantization: Literal["none", "fp8", "int8", "nf4"] = Field(
        "none", description="Quantize the denoiser and the large text encoders to save memory; makes other images."
    )
    text_encoder: Literal["auto", "resident", "staged"] = Field(
        "auto", description="Keep text encoders on the device, or only while they encode; auto: as memory allows."
    )
    offload: Literal["none", "model", "group"] = Field(
        "none",
        description="Keep weights in host memory; move them to the device a model or a group of layers at a time.",
    )
    attention: Literal["native", "cudnn", "flash2", "flash3", "sage"] = Field(
        "native",
        description="Kernel of the denoiser's attention; other last bits, and with sage, in 8 bits, other images.",
    )
    tf32: bool = Field(False, description="Multiply float32 matrices in TF32 on CUDA: faster, images change a little.")
    step_cache: Literal["none", "magcache", "taylorseer"] = Field(
        "none", description="Let denoising steps reuse what earlier ones computed: faster, lossy; makes other images."
    )
    compile: bool = Field(False, description="Compile the denoiser's blocks (torch.compile, by region).")
    compile_mode: Literal["default", "max-autotune"] = Field(
        "default",
        description="With compile: max-autotune measures which kernels are fastest, and compiles the VAE's decoder.",
    )

    @property
    def has_one_device(self) -> bool:
        """Whether a run uses one device of its machine."""
        return self.workers in (0, 1) and not self.dask_scheduler

    @model_validator(mode="after")
    def _possible_speed(self) -> Self:
        if self.dask_scheduler and self.workers != 1:
            raise ValueError("dask_scheduler has workers of its own; leave workers out, or write 1")
        if self.offload != "none" and self.text_encoder != "auto":
            raise ValueError("offload moves the text encoders, too; leave text_encoder out")
        if self.compile_mode != "default" and not self.compile:
            raise ValueError("compile_mode is how to compile; add compile")
        if self.compile_mode != "default" and self.offload == "group":
            raise ValueError("compile_mode compiles blocks as a whole, which offload group divides; leave one out")
        if self.step_cache != "none" and self.compile:
            raise ValueError("step_cache decides outside of compiled code, at each step; leave compile out")
        if self.step_cache != "none" and self.offload == "group":
            raise ValueError("step_cache skips layers that offload group waits for; leave one out")
        return self
