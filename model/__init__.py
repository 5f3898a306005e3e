"""What a latency is: architectures, operations, hardware, regression, composition."""
