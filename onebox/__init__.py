"""Heika on one machine: every service, the gateway and their data stores, started by one command."""
