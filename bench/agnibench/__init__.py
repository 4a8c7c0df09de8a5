"""Measures an AgniRegistry node and etcd side by side on this machine, and writes it down."""
