"""Replay: the columnar table, the mixing rule, durable Arrow shards and the actor that holds them together."""
