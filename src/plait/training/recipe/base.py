"""What every section of a recipe is: strict types, no unknown keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from plait.core.errors import did_you_mean

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]  # steps, epochs, rows
Width = Annotated[int, Field(ge=1, le=1_000_000)]  # features, pixels, rows of a batch
Depth = Annotated[int, Field(ge=1, le=10_000)]  # layers, heads
Precision = Literal["auto", "float32", "bfloat16"]
Step = dict[str, Any]  # one augmentation: {kind: flip}, {kind: crop, scale: [0.5, 1.0]}


class Section(BaseModel):
    """A section of a recipe: strict types, no unknown keys."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    hint = did_you_mean(str(key), cls.model_fields)
                    known = ", ".join(cls.model_fields)
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key{hint} (known: {known})",
                        {"key": key, "hint": hint, "known": known},
                    )
        return value
