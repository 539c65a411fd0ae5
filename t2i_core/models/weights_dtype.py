"""The dtype of a model's weights, from the headers of its safetensors files: some kilobytes of each."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Any

from t2i_core.models.pipeline_files import denoiser_weights

# A file's dtype -> that in which its tensors are loaded. 8-bit floats are for storage: nothing computes in them.
LOADED_AS = {
    "F64": "float32",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "bfloat16",
    "F8_E5M2": "bfloat16",
}


def weights_dtype(paths: Collection[str], header: Callable[[str], Mapping[str, Any]]) -> str | None:
    """Return the dtype of most of the denoiser's weights, counted in tensor elements; None where no header tells.

    Args:
        paths: the files of the pipeline.
        header: reads {tensor: its description} of one of them.
    """
    elements: Counter[str] = Counter()
    for path in denoiser_weights(paths):
        for tensor in header(path).values():
            if isinstance(tensor, Mapping) and (dtype := LOADED_AS.get(str(tensor.get("dtype")))):
                elements[dtype] += math.prod(tensor.get("shape", ()))
    # The order of the table decides between equals, so that the answer is always the same.
    return max(dict.fromkeys(LOADED_AS.values()), key=lambda dtype: elements[dtype]) if elements.total() else None
