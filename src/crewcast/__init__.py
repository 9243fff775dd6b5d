"""Crewcast: the open, self-hosted home for CrewAI projects.

`crewcast.webhooks` is what a subscriber imports; everything else belongs to the server.
"""

__version__ = "0.1.0"
