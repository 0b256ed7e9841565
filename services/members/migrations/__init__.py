"""The history of the members database."""
