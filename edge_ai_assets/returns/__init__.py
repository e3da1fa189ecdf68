"""The way home: from the durable outbox of a site to Azure's tables. Nothing here knows of Dagster."""
