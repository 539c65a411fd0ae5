"""`DatasetOptions`: the part of the configuration that says where the input is and what its columns mean."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, Field, field_validator

from t2i_core.options.values import EXAMPLE, Key


class DatasetOptions(BaseModel):
    """Options of the input: where it is, and what its columns mean."""

    heading: ClassVar = "Data set"

    dataset: Key | Annotated[list[Key], Field(min_length=1)] = Field(
        EXAMPLE,
        description="File of prompts (.jsonl .ndjson .json .csv .tsv .parquet .arrow .txt, text also as .gz .bz2 "
        ".xz .zst), a folder of them, a glob, s3://, https:// or hf://, hf:name[:config]:split, or 'example' for the "
        "bundled one. Several are read one after the other.",
    )
    conversation_key: Key = Field(
        "conversations", description="Column with the conversation of a row, or a path such as body.messages."
    )
    prompt_key: Key | None = Field(
        None, description="Column with a plain prompt, or a path such as body.prompt; replaces the conversation."
    )
    image_key: Key = Field("images", description="Column for image paths; a row that has some already is skipped.")
    id_key: Key | None = Field(None, description="Column whose value names the files instead of the row number.")
    roles: list[Key] = Field(["user"], min_length=1, description="Roles whose messages are prompts.")
    settings_key: Key = Field("generation", description="Column with settings of a row: seed, steps, height, ...")
    prompt_template: str | None = Field(None, description='Text around every prompt, for example "{prompt}, photo".')
    limit: int | None = Field(None, ge=1, description="Read only the first N rows.")

    @field_validator("prompt_template")
    @classmethod
    def _template_has_the_prompt(cls, value: str | None) -> str | None:
        if value is not None and "{prompt}" not in value:
            raise ValueError('has no {prompt}; write where the prompt goes, for example "{prompt}, photo"')
        return value
