"""The gateway: one address in front of the services, holding the route table, the proxy and the merged documentation."""
