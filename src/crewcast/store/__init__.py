"""The only layer that knows SQL. `protocol.Store` is what the others see."""
