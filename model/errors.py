"""The one error that bad input raises in this package."""


class InvalidFieldError(ValueError):
    """A value that cannot be used.

    Attributes:
        field: path of the value, relative to the object that was being read
            (``"tensor"``, ``"huggingface_config.hidden_size"``); empty for the
            object itself.
        message: what is wrong and the remedy, without the path.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        self.message = message

    def within(self, parent: str) -> "InvalidFieldError":
        """Returns the same error seen from the object that holds ``parent``."""
        path = ".".join(part for part in (parent, self.field) if part)
        return InvalidFieldError(path, self.message)
