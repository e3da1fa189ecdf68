"""The one partition of this project: the site. Time is in the data, not in the partitions.

A site that was away for weeks would be dropped by time partitions (see docs/adr/0001-partitions-by-site.md).
"""

import dagster as dg

SITES = dg.DynamicPartitionsDefinition(name="sites")
