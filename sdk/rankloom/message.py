"""What values that are stored or sent have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from rankloom import ref

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, AfterValidator(ref.check_name)]


class Message(BaseModel):
    """A message cannot be changed, and an unknown field in one is an error.

    Only who reads an answer passes over such fields (:meth:`of_answer`): a newer registry may say
    more, and what it is asked must be understood whole.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def of_answer(cls, text: bytes) -> Self:
        """Return what a registry answered, less the fields that are not known here.

        Args:
            text: JSON.

        Raises:
            ValidationError: (pydantic's) a field is missing, or no such value.
        """
        return cls.model_validate_json(text, extra="ignore")

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe answers as open, so that generated clients pass over new fields as well."""
        schema = handler(core_schema)
        if handler.mode == "serialization":
            handler.resolve_ref_schema(schema).pop("additionalProperties", None)
        return schema
