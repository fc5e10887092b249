"""What goes over the wire: requests and responses in the shapes of the OpenAI API, streams and errors."""

__all__: list[str] = []
