"""Reads measurements that others have published, as plain rows; knows nothing of the daemon."""
