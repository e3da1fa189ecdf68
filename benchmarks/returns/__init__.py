"""What `bench_returns` starts in processes of their own, and the link that it measures on."""
