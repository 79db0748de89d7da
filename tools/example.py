"""One command line below the options of `--help`, and in the generated reference."""


class Example:
    """A command of which `example` is typed as it stands there; IMAGE is the id of an image."""

    example = ""

    def get_epilog(self) -> str:
        """What cliff prints below the options."""
        return f"Example: {self.example}" if self.example else ""
