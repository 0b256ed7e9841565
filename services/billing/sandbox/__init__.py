"""The sandbox payment provider: a small server that speaks Stripe's wire format, for every place without real money.

Owns the `sandbox_*` tables, as Stripe owns its own: billing reaches them only through HTTP with the Stripe SDK.
Sends signed webhooks; hears the cashier's buttons. Refuses live keys, and production altogether.
"""
