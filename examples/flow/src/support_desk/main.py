#!/usr/bin/env python
import csv
import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from crewai.flow import Flow, listen, or_, router, start

from support_desk.crews.reply_crew.reply_crew import ReplyCrew
from support_desk.crews.triage_crew.triage_crew import TriageCrew

KNOWLEDGE = Path(__file__).resolve().parents[2] / "knowledge"
MAX_BRIEFS = 2


class TicketState(BaseModel):
    ticket: str = "T-301"
    customer: str = ""
    message: str = ""
    longest: int = 2000
    order: str = ""
    findings: str = ""
    category: str = ""
    urgency: str = ""
    refund: str = "none"
    brief: str = ""
    briefs: int = 0
    remarks: str = "nothing, it is the first one"


class SupportFlow(Flow[TicketState]):

    @start()
    def open_ticket(self, crewai_trigger_payload: dict = None):
        if crewai_trigger_payload:
            self.state.ticket = crewai_trigger_payload.get("ticket", self.state.ticket)
            self.state.message = crewai_trigger_payload.get("message", "")

        if not self.state.message:
            with open(KNOWLEDGE / "tickets.csv", encoding="utf-8", newline="") as f:
                tickets = {row["ticket"]: row for row in csv.DictReader(f)}
            if self.state.ticket not in tickets:
                raise ValueError(f"There is no ticket {self.state.ticket}, and no message was given")
            self.state.customer = tickets[self.state.ticket]["customer"]
            self.state.message = tickets[self.state.ticket]["message"]

        self.state.customer = self.state.customer or "the customer"
        order = re.search(r"[A-Z]-\d{4}", self.state.message)
        self.state.order = order[0] if order else "unknown"

    @listen(open_ticket)
    def triage_ticket(self):
        result = (
            TriageCrew()
            .crew()
            .kickoff(inputs={
                "ticket": self.state.ticket,
                "customer": self.state.customer,
                "message": self.state.message,
                "order": self.state.order,
            })
        )

        self.state.findings = result.tasks_output[0].raw
        self.state.category = result.pydantic.category
        self.state.urgency = result.pydantic.urgency

    @router(triage_ticket)
    def choose_desk(self) -> Literal["refund", "answer"]:
        return "refund" if self.state.category == "refund" else "answer"

    @listen("refund")
    def work_out_refund(self):
        with open(KNOWLEDGE / "orders.csv", encoding="utf-8", newline="") as f:
            prices = {row["order"]: float(row["price"]) for row in csv.DictReader(f)}
        if self.state.order in prices:
            price = prices[self.state.order]
            self.state.refund = f"{price:.2f} EUR, or {price * 0.8:.2f} EUR if the part was ridden"

    @listen(or_("answer", work_out_refund, "revise"))
    def write_brief(self):
        result = (
            ReplyCrew()
            .crew()
            .kickoff(inputs={
                "ticket": self.state.ticket,
                "customer": self.state.customer,
                "message": self.state.message,
                "category": self.state.category,
                "findings": self.state.findings,
                "refund": self.state.refund,
                "remarks": self.state.remarks,
                "longest": self.state.longest,
            })
        )

        self.state.brief = result.raw
        self.state.briefs += 1

    @router(write_brief)
    def check_brief(self) -> Literal["revise", "done"]:
        remarks = []
        if self.state.ticket not in self.state.brief:
            remarks.append(f"it does not name ticket {self.state.ticket}")
        if len(self.state.brief) > self.state.longest:
            remarks.append(f"it has more than {self.state.longest} characters")
        self.state.remarks = " and ".join(remarks)
        return "revise" if remarks and self.state.briefs < MAX_BRIEFS else "done"

    @listen("done")
    def close_ticket(self):
        note = f"\n\nLook at it before it is sent: {self.state.remarks}." if self.state.remarks else ""
        text = (
            f"# {self.state.ticket}: {self.state.category}, urgency {self.state.urgency}\n\n"
            f"{self.state.brief}{note}\n"
        )

        output_dir = Path("output")
        output_dir.mkdir(exist_ok=True)
        with open(output_dir / "brief.md", "w", encoding="utf-8") as f:
            f.write(text)
        return text


def kickoff():
    support_flow = SupportFlow()
    support_flow.kickoff(inputs={"ticket": "T-302"})


def plot():
    support_flow = SupportFlow()
    support_flow.plot()


def run_with_trigger():
    """
    Run the flow with trigger payload.
    """
    import json
    import sys

    if len(sys.argv) < 2:
        raise Exception("No trigger payload provided. Please provide JSON payload as argument.")

    try:
        trigger_payload = json.loads(sys.argv[1])
    except json.JSONDecodeError:
        raise Exception("Invalid JSON payload provided as argument")

    support_flow = SupportFlow()

    try:
        result = support_flow.kickoff({"crewai_trigger_payload": trigger_payload})
        return result
    except Exception as e:
        raise Exception(f"An error occurred while running the flow with trigger: {e}")


if __name__ == "__main__":
    kickoff()
