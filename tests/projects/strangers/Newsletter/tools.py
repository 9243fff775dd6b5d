import os

from crewai.tools import BaseTool


class ArchiveTool(BaseTool):
    name: str = "Archiv"
    description: str = "Lists the past issues of the newsletter."

    def _run(self, topic: str) -> str:
        title = os.environ["NEWSLETTER_TITLE"]
        return f"{title}: 3 issues, the last one edited by {os.getenv('NEWSLETTER_EDITOR')}"
