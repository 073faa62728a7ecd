"""HTTP/1.1: from sockets to the application, over ASGI. It must not know files or the API."""
