"""What values that are stored or sent have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from rankloom import ref

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, AfterValidator(ref.check_name)]


class Message(BaseModel):
    """A message cannot be changed, and an unknown field in one is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
