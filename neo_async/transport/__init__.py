"""Sockets: the order lane, HTTP, the websocket, the limiter and circuit breakers."""
