import csv
from datetime import datetime, timedelta
from pathlib import Path
from typing import Type

from crewai.tools import BaseTool
from pydantic import BaseModel, Field

SESSIONS = Path(__file__).resolve().parents[1] / "knowledge" / "sessions.csv"


def read_sessions() -> dict[str, dict[str, str]]:
    with SESSIONS.open(encoding="utf-8", newline="") as file:
        return {row["session"]: row for row in csv.DictReader(file)}


class FindSessionsInput(BaseModel):
    """Input schema for FindSessions."""

    guests: int = Field(..., ge=1, description="How many guests come.")
    minutes: int = Field(180, ge=60, le=480, description="How long the workshop may take.")


class FindSessions(BaseTool):
    name: str = "find_sessions"
    description: str = "Finds the kinds of sessions that suit a number of guests and fit into the minutes there are."
    args_schema: Type[BaseModel] = FindSessionsInput

    def _run(self, guests: int, minutes: int = 180) -> str:
        unsuited = "20 guests or fewer" if guests > 20 else "20 guests or more"
        found, left = [], minutes
        for row in read_sessions().values():
            if unsuited not in row["suits"] and int(row["minutes"]) <= left:
                found.append(row["session"])
                left -= int(row["minutes"])
        return f"Sessions for {guests} guests in {minutes} minutes: {'; '.join(found)}"


class MakeTimetableInput(BaseModel):
    """Input schema for MakeTimetable."""

    sessions: list[str] = Field(..., description="The sessions in their order.")
    start: str = Field(..., description="When the first one begins, as HH:MM.")


class MakeTimetable(BaseTool):
    name: str = "make_timetable"
    description: str = "Gives each session of a workshop its time."
    args_schema: Type[BaseModel] = MakeTimetableInput

    def _run(self, sessions: list[str], start: str) -> str:
        known = read_sessions()
        time = datetime.strptime(start, "%H:%M")
        lines = []
        for session in sessions:
            lines.append(f"{time:%H:%M} {session}")
            time += timedelta(minutes=int(known[session]["minutes"]) if session in known else 30)
        return f"{', '.join(lines)}, {time:%H:%M} end"
