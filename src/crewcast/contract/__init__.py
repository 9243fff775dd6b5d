"""What others see: the REST bodies, the webhook payloads and headers, the AsyncAPI document."""
