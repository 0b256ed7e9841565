"""What holds whatever went wrong, once it has passed."""

from tests.failures.billing.world import World

MONEY = """
    SELECT c.intent_id, c.amount AS charged, c.amount_refunded AS given_back, p.amount AS taken_in,
        coalesce((SELECT sum(r.amount) FROM refund r WHERE r.payment_id = p.id AND r.status = 'succeeded'), 0) AS booked_back
    FROM (SELECT * FROM sandbox_charge WHERE status = 'succeeded') c
    FULL JOIN payment p ON p.provider_ref = c.intent_id
"""
BOOKED = """
    SELECT coalesce(sum(l.debit - l.credit), 0)
    FROM ledger_line l JOIN ledger_entry e ON e.id = l.entry_id
    WHERE l.account = 'provider_receivable' AND (e.kind LIKE 'payment%' OR e.kind LIKE 'refund%')
"""
KEPT = """
    SELECT o.number FROM "order" o JOIN payment p ON p.order_id = o.id JOIN sandbox_charge c ON c.intent_id = p.provider_ref
    WHERE c.status = 'succeeded' GROUP BY o.id HAVING sum(c.amount - c.amount_refunded) > o.total
"""
ORDERS = """
    SELECT o.number FROM "order" o
    WHERE (SELECT count(*) FROM payment p WHERE p.order_id = o.id AND p.status = 'applied')
            <> (o.paid_at IS NOT NULL AND o.total > 0)::int
        OR o.refunded_amount <> (SELECT coalesce(sum(r.amount), 0) FROM refund r
            WHERE r.order_id = o.id AND r.status = 'succeeded' AND r.cause <> 'surplus')
"""
COUPONS = """
    SELECT o.number, u.status FROM "order" o LEFT JOIN coupon_use u ON u.order_id = o.id AND u.status <> 'released'
    WHERE o.coupon_id IS NOT NULL AND coalesce(u.status, 'released') <> CASE
        WHEN o.status = 'pending' THEN 'reserved'
        WHEN o.status IN ('paid', 'partially_refunded', 'disputed') THEN 'redeemed' ELSE 'released' END
"""
WAITING = """
    SELECT 'webhook' FROM provider_event WHERE handled_at IS NULL
    UNION ALL SELECT 'refund' FROM refund WHERE status = 'pending'
    UNION ALL SELECT 'order' FROM "order" WHERE status <> 'pending' AND next_check_at IS NOT NULL
    UNION ALL SELECT 'session' FROM sandbox_session s JOIN "order" o ON o.id::text = s.client_reference_id
        WHERE s.status = 'open' AND o.status <> 'pending'
    UNION ALL SELECT 'event' FROM event_failure
"""
ENTITLED = """
    SELECT id::text FROM "order" WHERE kind = 'membership' AND member_id = :member
    AND status IN ('paid', 'partially_refunded') ORDER BY id
"""


async def check(world: World) -> None:
    """Every invariant; what is due was done before."""
    billing = world.billing
    await world.till.balanced()
    # Every fen that the provider took or gave back is known, once.
    money = await billing.sql(MONEY)
    assert all((row.charged, row.given_back) == (row.taken_in, row.booked_back) for row in money), money
    assert (await billing.sql(BOOKED))[0][0] == sum(row.charged - row.given_back for row in money)
    # Nobody paid twice for the same thing, nobody was given more than they had paid.
    assert await billing.sql(KEPT) == []
    assert await billing.sql(ORDERS) == []
    assert await billing.sql(COUPONS) == []
    # Who paid is in, who got their money back is not.
    entitled = [row[0] for row in await billing.sql(ENTITLED, member=world.member)]
    assert sorted(source for kind, source in await world.segments() if kind == "order") == entitled
    told = await world.members.sql("SELECT member_id, version FROM membership_version WHERE version > 0")
    assert sorted(await billing.sql("SELECT member_id, version FROM member_time")) == sorted(told)
    # Everything was told once.
    facts = [(type(event).__name__, str(event.order_id)) for event in world.heard if hasattr(event, "order_id")]
    once = [fact for fact in facts if fact[0] in ("OrderPaid", "OrderClosed")]
    assert len(once) == len(set(once)), once
    # Nothing is left to do, and doing it again does nothing.
    assert await billing.sql(WAITING) == []
    assert await world.members.sql("SELECT error FROM event_failure") == []
    assert await world.settle() == 0
