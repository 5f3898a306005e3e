"""Tables and lines for a person, 80 columns wide; needs the extra `cli`."""
