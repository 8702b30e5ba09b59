"""Kubernetes: the cluster of kubectl's context, and the programs that speak to it."""
