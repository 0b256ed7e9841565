"""The history of the courses database."""
