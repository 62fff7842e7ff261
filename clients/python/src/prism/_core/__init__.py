"""The client without I/O: what to send, when to try again, how to read what came. Shared by both transports."""
