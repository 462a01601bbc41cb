"""Models as protobufs and their wire format, and as text."""
