"""Features by Spark: what a job is to do, and the clusters that do it."""
