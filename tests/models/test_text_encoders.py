"""Where every accepted pipeline of the installed diffusers cuts a prompt, against the pipelines' source.

Where these tests fail after an upgrade of diffusers, a pipeline is new or tokenizes in another way: read its source,
mend `EXCEPTIONS` where the rule is not right for it, and write here what the source says.
"""

import re
from typing import NamedTuple

import pytest

from t2i_core.models.text_encoders import EXCEPTIONS, Limit, text_encoders
from tests.models.tokenization import accepted_pipelines, components, lengths_in_source, texts_in_source


class Way(NamedTuple):
    """Pipelines whose source cuts in the same way.

    source: what `lengths_in_source` finds.
    limits: pipeline -> each tokenizer with its limit, where the tokenizers say 55 and `max_sequence_length` is 66.
    """

    source: list[str]
    limits: dict[str, str]


WAYS = [
    Way(
        ["self.tokenizer: max_sequence_length", "self.tokenizer: prompt_embeds.shape[1]"],
        {
            "AuraFlowPipeline": "tokenizer 66",
            "PixArtSigmaPAGPipeline": "tokenizer 66",
            "PixArtAlphaPipeline": "tokenizer 66",
            "PixArtSigmaPipeline": "tokenizer 66",
        },
    ),
    Way(
        ["tokenizer: max_sequence_length"],
        {
            "BriaPipeline": "tokenizer 66",
            "Flux2KleinPipeline": "tokenizer 66",
            "Flux2KleinKVPipeline": "tokenizer 66",
            "KolorsPipeline": "tokenizer 66",
            "KolorsPAGPipeline": "tokenizer 66",
        },
    ),
    Way(
        ["self.tokenizer: max_sequence_length"],
        {
            "BriaFiboPipeline": "tokenizer 66",
            "ChromaPipeline": "tokenizer 66",
            "CogView3PlusPipeline": "tokenizer 66",
            "CogView4Pipeline": "tokenizer 66",
            "Cosmos2TextToImagePipeline": "tokenizer 66",
            "Lumina2Pipeline": "tokenizer 66",
            "ZImagePipeline": "tokenizer 66",
            "ZImageOmniPipeline": "tokenizer 66",
            "GlmImagePipeline": "processor None",
        },
    ),
    Way(
        ["processor: max_sequence_length"],
        {
            "BriaFibo2Pipeline": "processor 4096",
        },
    ),
    Way(
        ["self.tokenizer: 77", "self.tokenizer: prompt_embeds.shape[1]"],
        {
            "IFPipeline": "tokenizer 77",
        },
    ),
    Way(
        ["self.tokenizer: prompt_embeds.shape[1]", "self.tokenizer: self.tokenizer.model_max_length"],
        {
            "AltDiffusionPipeline": "tokenizer 55",
            "StableDiffusionPanoramaPipeline": "tokenizer 55",
            "StableDiffusionSAGPipeline": "tokenizer 55",
            "StableDiffusionParadigmsPipeline": "tokenizer 55",
            "LatentConsistencyModelPipeline": "tokenizer 55",
            "StableDiffusionPAGPipeline": "tokenizer 55",
            "StableDiffusionPipeline": "tokenizer 55",
        },
    ),
    Way(
        ["self.tokenizer: self.tokenizer.model_max_length"],
        {
            "AmusedPipeline": "tokenizer 55",
        },
    ),
    Way(
        ["self.tokenizer: self.tokenizer.model_max_length", "self.tokenizer: text_input_ids.shape[-1]"],
        {
            "SemanticStableDiffusionPipeline": "tokenizer 55",
            "VersatileDiffusionTextToImagePipeline": "tokenizer 55",
        },
    ),
    Way(
        ["self.clip_tokenizer: prompt_embeds.shape[1]", "self.clip_tokenizer: self.clip_tokenizer.model_max_length"],
        {
            "UniDiffuserPipeline": "clip_tokenizer 55",
        },
    ),
    Way(
        [
            "WuerstchenDecoderPipeline.self.tokenizer: self.tokenizer.model_max_length",
            "WuerstchenPriorPipeline.self.tokenizer: self.tokenizer.model_max_length",
        ],
        {
            "WuerstchenCombinedPipeline": "tokenizer 55, prior_tokenizer 55",
        },
    ),
    Way(
        ["self.tokenizer: max_sequence_length + drop_idx"],
        {
            "DreamLitePipeline": "tokenizer 66",
            "DreamLiteMobilePipeline": "tokenizer 66",
        },
    ),
    Way(
        ["self.tokenizer: its own"],
        {
            "ErnieImagePipeline": "tokenizer 55",
        },
    ),
    Way(
        [
            "self.tokenizer: 77",
            "self.tokenizer: self.tokenizer.model_max_length",
            "self.tokenizer_2: max_sequence_length",
        ],
        {
            "FluxPipeline": "tokenizer 55, tokenizer_2 66",
            "FluxKontextPipeline": "tokenizer 55, tokenizer_2 66",
        },
    ),
    Way(
        ["self.tokenizer.apply_chat_template: 2048", "tokenizer.apply_chat_template: max_sequence_length"],
        {
            "Flux2Pipeline": "tokenizer 66",
        },
    ),
    Way(
        [
            "self.tokenizer_3: min(max_sequence_length, self.tokenizer_3.model_max_length)",
            "self.tokenizer_4: min(max_sequence_length, self.tokenizer_4.model_max_length)",
            "tokenizer: min(max_sequence_length, 218)",
        ],
        {
            "HiDreamImagePipeline": "tokenizer 66, tokenizer_2 66, tokenizer_3 55, tokenizer_4 55",
        },
    ),
    Way(
        ["tokenizer: tokenizer_max_length", "tokenizer: tokenizer_max_length + drop_idx"],
        {
            "HunyuanImagePipeline": "tokenizer 1000",
        },
    ),
    Way(
        ["tokenizer: 256", "tokenizer: 77", "tokenizer: max_sequence_length", "tokenizer: prompt_embeds.shape[1]"],
        {
            "HunyuanDiTPipeline": "tokenizer 77, tokenizer_2 256",
            "HunyuanDiTPAGPipeline": "tokenizer 77, tokenizer_2 256",
        },
    ),
    Way(
        [],
        {
            "Ideogram4Pipeline": "tokenizer 66",
            "OmniGenPipeline": "tokenizer None",
            "QwenImage21Pipeline": "processor None",
        },
    ),
    Way(
        [
            "KandinskyPipeline.self.tokenizer: 77",
            "KandinskyPriorPipeline.self.tokenizer: self.tokenizer.model_max_length",
        ],
        {
            "KandinskyCombinedPipeline": "prior_tokenizer 55, tokenizer 77",
        },
    ),
    Way(
        ["KandinskyV22PriorPipeline.self.tokenizer: self.tokenizer.model_max_length"],
        {
            "KandinskyV22CombinedPipeline": "prior_tokenizer 55",
        },
    ),
    Way(
        ["self.tokenizer: 128"],
        {
            "Kandinsky3Pipeline": "tokenizer 128",
        },
    ),
    Way(
        ["self.tokenizer: self.prompt_template_encode_start_idx + max_sequence_length", "self.tokenizer_2: 77"],
        {
            "Kandinsky5T2IPipeline": "tokenizer 64, tokenizer_2 77",
        },
    ),
    Way(
        ["self.tokenizer: max_sequence_length + prefix_idx - self.prompt_template_encode_num_suffix_tokens"],
        {
            "Krea2Pipeline": "tokenizer 61",
        },
    ),
    Way(
        ["self.tokenizer: 77"],
        {
            "LDMTextToImagePipeline": "tokenizer 77",
        },
    ),
    Way(
        ["self.tokenizer.pad: 512"],
        {
            "LongCatImagePipeline": "tokenizer 512",
        },
    ),
    Way(
        ["self.tokenizer: 256", "self.tokenizer: prompt_embeds.shape[1]"],
        {
            "LuminaPipeline": "tokenizer 256",
        },
    ),
    Way(
        ["self.processor: max_sequence_length"],
        {
            "NucleusMoEImagePipeline": "processor 66",
        },
    ),
    Way(
        ["self.tokenizer: max_sequence_length + self.user_prompt_begin_id"],
        {
            "OvisImagePipeline": "tokenizer 66",
        },
    ),
    Way(
        [
            "self.tokenizer: max_length",
            "self.tokenizer: max_sequence_length",
            "self.tokenizer: num_chi_prompt_tokens + max_length - 2",
            "self.tokenizer: prompt_embeds.shape[1]",
        ],
        {
            "SanaPAGPipeline": "tokenizer 65",
        },
    ),
    Way(
        ["self.tokenizer_3: max_sequence_length", "tokenizer: 77", "tokenizer: self.tokenizer.model_max_length"],
        {
            "StableDiffusion3PAGPipeline": "tokenizer 55, tokenizer_2 55, tokenizer_3 66",
            "StableDiffusion3Pipeline": "tokenizer 55, tokenizer_2 55, tokenizer_3 66",
        },
    ),
    Way(
        ["tokenizer: prompt_embeds.shape[1]", "tokenizer: tokenizer.model_max_length"],
        {
            "StableDiffusionXLPAGPipeline": "tokenizer 55, tokenizer_2 55",
            "StableDiffusionXLPipeline": "tokenizer 55, tokenizer_2 55",
        },
    ),
    Way(
        ["self.tokenizer: tokenizer_max_length or self.tokenizer.model_max_length"],
        {
            "PRXPipeline": "tokenizer 55",
        },
    ),
    Way(
        ["self.tokenizer: self.config.prompt_max_tokens"],
        {
            "PRXPixelPipeline": "tokenizer 256",
        },
    ),
    Way(
        ["self.tokenizer: self.tokenizer_max_length + drop_idx"],
        {
            "QwenImagePipeline": "tokenizer 66",
        },
    ),
    Way(
        ["self.tokenizer: max_sequence_length", "self.tokenizer: num_chi_prompt_tokens + max_sequence_length - 2"],
        {
            "SanaPipeline": "tokenizer 65",
            "SanaSprintPipeline": "tokenizer 65",
        },
    ),
    Way(
        [
            "StableCascadeDecoderPipeline.self.tokenizer: self.tokenizer.model_max_length",
            "StableCascadePriorPipeline.self.tokenizer: self.tokenizer.model_max_length",
        ],
        {
            "StableCascadeCombinedPipeline": "tokenizer 55, prior_tokenizer 55",
        },
    ),
    Way(
        [
            "self.prior_tokenizer: self.prior_tokenizer.model_max_length",
            "self.tokenizer: prompt_embeds.shape[1]",
            "self.tokenizer: self.tokenizer.model_max_length",
        ],
        {
            "StableUnCLIPPipeline": "tokenizer 55, prior_tokenizer 55",
        },
    ),
]
LIMITS = {name: limits for way in WAYS for name, limits in way.limits.items()}


def test_the_source_of_every_accepted_pipeline_cuts_as_it_did_when_the_limits_were_written() -> None:
    found = {name: lengths_in_source(definition) for name, definition in accepted_pipelines().items()}
    assert found == {name: way.source for way in WAYS for name in way.limits}


@pytest.mark.parametrize("name", LIMITS)
def test_every_text_encoder_has_the_limit_of_the_pipelines_source(name: str) -> None:
    encoders = text_encoders(name, components(accepted_pipelines()[name]))
    limits = [f"{encoder.tokenizer} {encoder.limit.tokens(55, 66, {})}" for encoder in encoders]
    assert ", ".join(limits) == LIMITS[name]


def test_every_exception_is_an_accepted_pipeline() -> None:
    assert EXCEPTIONS.keys() <= LIMITS.keys()


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_names_components_of_its_pipeline(name: str) -> None:
    parts = components(accepted_pipelines()[name])
    assert {*EXCEPTIONS[name]} | {encoder for encoder, _ in EXCEPTIONS[name].values()} <= parts.keys()


@pytest.mark.parametrize(
    ("folder", "name"),
    [("flux2", "Flux2Pipeline"), ("lumina2", "Lumina2Pipeline"), ("nucleusmoe_image", "NucleusMoEImagePipeline")],
)
def test_sentences_before_the_prompt_are_those_of_the_source(folder: str, name: str) -> None:
    (before,) = (limit.before for _, limit in EXCEPTIONS[name].values())
    sentences = [part.strip() for part in re.split(r"<[^>]+>(?:system|user)?|\[[^]]+\]", before)]
    texts = texts_in_source(folder)
    found = [sentence for sentence in sentences if any(sentence in text for text in texts) and len(sentence) > 50]
    assert len(found) == 1


def test_parts_that_a_model_leaves_out_are_not_asked() -> None:
    index = {
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer_3": [None, None],
        "text_encoder_3": [None, None],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "force_zeros_for_empty_prompt": True,
    }
    (encoder,) = text_encoders("StableDiffusion3Pipeline", index)
    assert (encoder.name, encoder.tokenizer) == ("CLIPTextModelWithProjection", "tokenizer")


@pytest.mark.parametrize(
    ("limit", "own", "argument", "settings", "tokens"),
    [
        (Limit(), 77, 256, {}, None),
        (Limit(own=True), 10**30, None, {}, None),  # what a tokenizer without a limit says
        (Limit(argument=True), 77, None, {}, None),
        (Limit(argument=True, default=1024), 77, None, {}, 1024),
        (Limit(argument=True, default=1024), 77, 2048, {}, 2048),
        (Limit(argument=True, fixed=218), 77, 512, {}, 218),
        (Limit(argument=True, own=True), 512, 128, {}, 128),
        (Limit(argument=True, own=True), 10**30, 128, {}, 128),
        (Limit(fixed=256, setting="prompt_max_tokens"), 77, None, {"prompt_max_tokens": 300}, 300),
        (Limit(argument=True, reserved=5), 77, 512, {}, 507),
    ],
)
def test_the_smallest_of_what_cuts_is_the_limit(
    limit: Limit, own: int, argument: int | None, settings: dict[str, int], tokens: int | None
) -> None:
    assert limit.tokens(own, argument, settings) == tokens
