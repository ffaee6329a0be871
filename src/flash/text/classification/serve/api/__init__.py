"""The server's ASGI application: routes, request and response schemas, middleware."""
