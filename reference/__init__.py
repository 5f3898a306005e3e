"""Reads measurements that others have published or a user brings; knows nothing of the daemon."""
