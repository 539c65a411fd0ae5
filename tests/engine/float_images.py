"""Images as the model's own floats: bytes would hide a difference in the last bits."""

from unittest import mock

from t2i_core.engine import batch_generator
from t2i_core.generation.interface import Timings


def float_images(generator, batches, batch_size, on_step=lambda step, steps: None):
    """Return the images of `batches`, one after another: float32 (height, width, 3) in 0..1; raise the first error."""
    with mock.patch.object(batch_generator, "to_host", lambda image: lambda: image.permute(1, 2, 0).float().numpy()):
        generated = list(generator.generate(batches, batch_size, lambda: False, Timings(), on_step))
    images = [image for part in generated for image in part]
    for image in images:
        if isinstance(image, Exception):
            raise image
    return [image.pixels() for image in images]
