"""The registry of billing's tables, which the sandbox provider's tables share."""

from sqlmodel import SQLModel

from kit.db import UNCHECKED, new_registry


class Model(SQLModel, registry=new_registry()):
    """Base of billing's tables."""

    model_config = UNCHECKED
