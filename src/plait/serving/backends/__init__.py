"""What computes for a server: bundles, runs, other servers."""
