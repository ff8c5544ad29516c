"""The durable engine, on DBOS: work that goes on from its last finished step after any crash."""
