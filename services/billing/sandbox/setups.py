"""Cards kept without a payment: a session of mode `setup`, and the SetupIntent it completes."""

from sqlalchemy.ext.asyncio import AsyncSession
from stripe.params import SetupIntentRetrieveParams

from kit import clock
from services.billing.sandbox import methods
from services.billing.sandbox.call import Call, operation
from services.billing.sandbox.events import tell
from services.billing.sandbox.models import SandboxSession, SandboxSetup
from services.billing.sandbox.objects import find
from services.billing.sandbox.payers import payer_id, payer_of
from services.billing.sandbox.shapes import DECLINES, Json, session_json, setup_json
from services.billing.sandbox.wire import new_key


async def begin(session: AsyncSession, visit: SandboxSession) -> None:
    """Give a new session, not yet written, its SetupIntent."""
    setup = SandboxSetup(
        id=new_key("seti"),
        customer_id=visit.customer_id,
        description=visit.setup_intent_data.get("description"),
        labels=visit.setup_intent_data.get("metadata", {}),
        created_at=clock.now(),
    )
    session.add(setup)
    await session.flush()
    visit.setup_id, visit.payment_status = setup.id, "no_payment_required"


async def complete(session: AsyncSession, visit: SandboxSession, fingerprint: str | None, copies: int) -> None:
    """Keep the card; `visit` was closed by the caller in this transaction."""
    setup = await session.get_one(SandboxSetup, visit.setup_id)
    fingerprint = fingerprint or (await payer_of(session, payer_id(visit))).fingerprint
    card = await methods.make(session, "card", fingerprint, visit.customer_id)
    setup.status, setup.method_id, setup.last_setup_error = "succeeded", card.id, None
    await session.flush()
    await tell(session, "setup_intent.succeeded", visit.id, setup_json(setup), copies)
    await tell(session, "checkout.session.completed", visit.id, session_json(visit), copies)


async def fail(session: AsyncSession, visit: SandboxSession) -> None:
    """The bank refuses the card; the session stays open for another."""
    setup = await session.get_one(SandboxSetup, visit.setup_id)
    code = "card_declined"
    setup.last_setup_error = {
        "type": "card_error",
        "code": code,
        "decline_code": "generic_decline",
        "message": DECLINES[code],
        "payment_method_type": "card",
    }
    await session.flush()
    await tell(session, "setup_intent.setup_failed", visit.id, setup_json(setup))


async def cancel(session: AsyncSession, visit: SandboxSession) -> None:
    """The session ended without a card."""
    setup = await session.get_one(SandboxSetup, visit.setup_id)
    setup.status = "canceled"
    await session.flush()
    await tell(session, "setup_intent.canceled", visit.id, setup_json(setup))


async def retrieve(call: Call) -> Json:
    """One SetupIntent."""
    return setup_json(await find(call.session, "seti", call.key, "intent"))


OPERATIONS = [operation("GET", "/v1/setup_intents/{key}", SetupIntentRetrieveParams, "", retrieve)]
