"""Bodies of PATCH: what is left out stays, and null is for what may be empty."""

from typing import ClassVar, Self

from pydantic import GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails

from kit.shapes import StrictIn
from kit.wording import Wrong


class Patch(StrictIn):
    """What to change; what is left out stays, and null is refused where a value is needed."""

    nullable: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def _needs_values(self) -> Self:
        empty = [name for name in self.model_fields_set - self.nullable if getattr(self, name) is None]
        if empty:
            wrong = Wrong("must not be null; leave it out to keep it", "不能为 null；要保持原样请不要写")
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [InitErrorDetails(type="value_error", loc=(name,), input=None, ctx={"error": wrong}) for name in empty],
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The document tells of null where it may be sent, and only there."""
        told = handler.resolve_ref_schema(handler(core))
        for name, field in told["properties"].items():
            match field:
                case {"anyOf": [value, {"type": "null"}]} if name not in cls.nullable:
                    del field["anyOf"], field["default"]
                    field.update(value)
        return told
