"""The daemon: gRPC services, store, jobs, schedules, configuration."""
