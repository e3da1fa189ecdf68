"""The way home, from the durable outbox of a site to Azure's tables. Nothing here knows of Dagster.

The sub-packages in the order of the way: `outbox`, `egress`, `package`, then `road` or `hub`, then `inbox`.
"""
