"""The `tokenpace` command, one module for each family of subcommands; needs the extra `cli`."""
