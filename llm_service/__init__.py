"""vLLM behind Ray Serve: engine, adapter versions, deployment, client. Knows nothing of the method that asks.

Importing this package or `client`, `settings`, `fake`, `adapters` costs nothing: vLLM and torch are imported only where
an engine starts, Ray only where a deployment is used.
"""
