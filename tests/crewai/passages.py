"""One run in several processes, with nothing but JSON from one to the next, and the same run as at a terminal."""

import json
import shutil

from tests.crewai.driver import PROJECTS, lab

HEADER = '''
import json, os, signal, time
from crewai import Agent, Crew, Process, Task
from crewai.project import CrewBase
from crewai.tasks.conditional_task import ConditionalTask
from crewai.tools import tool
from pydantic import BaseModel
from scripted import answer, call, committed, crew, task, use
from reviewed import llm, note, read, ready, worker, CALLS, EFFECTS

@tool("Look Up")
def look_up(word: str) -> str:
    """Look a word up."""
    note("look up", word)
    return word.upper()

def once(word):
    """Die, as by kill -9, the first time that this comes by."""
    if ["die", word] not in read(EFFECTS):
        note("die", word)
        os.kill(os.getpid(), signal.SIGKILL)
'''
FOOTER = """
@CrewBase
class Lab:
    def crew(self):
        return ready(build())
"""
APPROVE = {"approve": True, "feedback": "", "pass_feedback": True}
# Other in every process, or as long as it takes.
VOLATILE = {"at", "event_id", "started_event_id", "execution_time", "sync", "journal", "seconds"}


def approve(feedback="", *, pass_feedback=True):
    return {"approve": True, "feedback": feedback, "pass_feedback": pass_feedback}


def reject(feedback):
    return {"approve": False, "feedback": feedback, "pass_feedback": True}


def project(folder, code):
    lab(folder, code, HEADER, FOOTER)
    shutil.copy(PROJECTS / "reviewed.py", folder / "src/reviewed.py")
    return folder


class Passages:
    """A server's side of one run: it keeps the journal, as the store does, and starts each process with it."""

    def __init__(self, host, folder, *, keeps=True):
        self.host, self.folder = host, folder
        self.journal = {} if keeps else None
        self.processes = []

    def go(self, decision=None, status=0, **fields):
        """One process, from its start to its end; its lines."""
        child = self.host.start(self.folder, journal=self.journal, decision=decision, **fields)
        self.child = child
        lines = []
        while (line := child.next()) is not None:
            lines.append(line)
            self.commit(line)
            child.acknowledge(line)
        assert child.status() == status, child.log()
        self.processes.append(lines)
        self.last = lines[-1]
        return lines

    def commit(self, line):
        for name, value in line.get("journal", {}).items():
            if value is None:
                self.journal.pop(name, None)
            else:
                self.journal[name] = value

    @property
    def events(self):
        return [line for lines in self.processes for line in lines if line["op"] == "event"]

    @property
    def calls(self):
        return _read(self.folder / "calls.jsonl")

    @property
    def effects(self):
        return [effect for effect in _read(self.folder / "effects.jsonl") if effect[0] != "die"]

    def prompts(self, who):
        """What this model was told, each time, as one text."""
        return [
            "\n".join(str(message.get("content")) for message in call["messages"])
            for call in self.calls
            if call["llm"] == who
        ]

    def story(self):
        """All that must be the same at a terminal."""
        end = {name: value for name, value in self.last.items() if name not in VOLATILE | {"traceback"}}
        end["tasks"] = [_steady(task) for task in end["tasks"]]
        return {
            "calls": self.calls,
            "effects": self.effects,
            "events": [_steady(line) for line in self.events],
            "end": end,
        }


def _steady(line):
    return {name: value for name, value in line.items() if name not in VOLATILE}


def _read(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


class Review:
    """A crew, run with these decisions in several processes, and with the same people at a terminal."""

    def __init__(self, host, folder):
        self.host, self.folder = host, folder

    def __call__(self, code, *decisions, **fields):
        """Each decision is for one pause; the run, after it was compared."""
        apart = self.apart(code, *decisions, **fields)
        (self.folder / "terminal").mkdir()
        at_once = Passages(self.host, project(self.folder / "terminal", code), keeps=False)
        typed = [decision["feedback"] if not decision["approve"] else "" for decision in decisions]
        (at_once.folder / "answers.json").write_text(json.dumps(typed))
        at_once.go(**fields)
        assert json.loads((at_once.folder / "answers.json").read_text()) == []
        ours, theirs = apart.story(), at_once.story()
        for part, value in theirs.items():
            assert ours[part] == value
        return apart

    def apart(self, code, *decisions, **fields):
        (self.folder / "apart").mkdir()
        apart = Passages(self.host, project(self.folder / "apart", code))
        apart.go(**fields)
        for decision in decisions:
            assert apart.last["op"] == "paused", apart.last
            apart.go(decision, **fields)
        assert apart.last["op"] != "paused", apart.last
        return apart
