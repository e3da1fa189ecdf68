"""Models trained on Azure, run where the internet is not: one asset graph from lake data to insights that
came home."""
