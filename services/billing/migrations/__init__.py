"""The history of the billing database."""
