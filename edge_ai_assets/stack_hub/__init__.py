"""Code location of the sites' side: release, deployment, scores, insights, egress, upload; partitioned by
site."""
