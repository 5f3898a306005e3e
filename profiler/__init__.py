"""How a latency is measured: real layers, timers, telemetry, campaigns."""
