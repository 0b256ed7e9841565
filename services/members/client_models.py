"""The table of partners' clients, as referrals tells of them."""

from uuid import UUID

from sqlmodel import Field

from services.members.models import Model


class PartnerClient(Model, table=True):
    """A partner's OAuth2 client; the secret is kept by its SHA-256, `version` is referrals' count of changes."""

    __tablename__ = "partner_client"

    partner_id: UUID = Field(primary_key=True)
    client_id: str = Field(unique=True)
    secret_hash: str
    active: bool
    version: int
