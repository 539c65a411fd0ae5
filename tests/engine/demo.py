"""The demo model in tests of the engine: how it is loaded, and one image of it."""

from t2i_core.bundled import DEMO_MODEL
from t2i_core.generation.interface import LoadConfig
from t2i_core.spec import ImageSpec
from tests.engine.float_images import float_images


def load_config(**values):
    """Return how the demo model is loaded, but for `values`."""
    return LoadConfig(**{"path": str(DEMO_MODEL), "dtype": "float32", "device": "cpu"} | values)


def first_image(model):
    """Return the float pixels of one image of a loaded demo model."""
    size = {"height": 64, "width": 64, "steps": 2, "dtype": "float32", "max_sequence_length": 24}
    spec = ImageSpec(model="demo", prompt="a fox in the snow", seed=1, **size)
    (image,) = float_images(model, [[spec]], 1)
    return image
