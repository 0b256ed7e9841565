"""The history of the referrals database."""
