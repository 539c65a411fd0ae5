"""A Stable Diffusion with a tiny safety checker that objects to chosen images."""

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from transformers import CLIPConfig, CLIPImageProcessor

SIDE = 16  # of what the checker sees
WIDTH = 16


def clip_config():
    """Return the configuration of a tiny CLIP, which the checkers are made of."""
    vision = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = vision | {"vocab_size": 10, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    vision |= {"image_size": SIDE, "patch_size": 8, "projection_dim": WIDTH}
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=WIDTH)


def image_processor():
    """Return what turns pictures into what the tiny CLIP sees."""
    return CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def add_safety_checker(folder, objects_to, tolerates, target):
    """Save the pipeline of `folder` as `target`, with a checker that objects to some images and tolerates the others.

    Images are floats (height, width, 3) in 0..1. The checker compares an image with 17 concepts: one of them is made of
    the images that it objects to, the others say nothing.
    """
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    torch.manual_seed(0)
    checker = StableDiffusionSafetyChecker(clip_config()).eval()
    extractor = image_processor()

    def embedding(image):
        pixels = extractor(pipeline.numpy_to_pil(image), return_tensors="pt").pixel_values
        embedded = checker.visual_projection(checker.vision_model(pixels)[1])[0]
        return embedded / embedded.norm()

    with torch.no_grad():
        bad, good = ([embedding(image) for image in images] for images in (objects_to, tolerates))
        concept = torch.stack(bad).mean(dim=0) - torch.stack(good).mean(dim=0)
        concept /= concept.norm()
        lowest, highest = min(float(one @ concept) for one in bad), max(float(one @ concept) for one in good)
        assert lowest - highest > 0.004, "the checker cannot tell these images apart"
        checker.concept_embeds[:] = concept
        checker.concept_embeds_weights[:] = 2.0  # of a cosine: never reached
        checker.concept_embeds_weights[0] = (lowest + highest) / 2
        checker.special_care_embeds[:] = concept
        checker.special_care_embeds_weights[:] = 2.0
    pipeline.register_modules(safety_checker=checker, feature_extractor=extractor)
    pipeline.register_to_config(requires_safety_checker=True)
    pipeline.save_pretrained(target)
