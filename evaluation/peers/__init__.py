"""What others predict of the same rows: each a module that knows nothing of the other."""
