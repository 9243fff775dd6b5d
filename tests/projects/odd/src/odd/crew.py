"""A crew that does something odd between its two tasks, as its optional input `act` says."""

import atexit
import json
import os
import signal
import sys
import time

from crewai import Agent, Crew, Task
from crewai.project import CrewBase, agent, crew, task


def act(what, argument):
    if what == "print":
        print("printed on stdout")
        print("printed on stderr", file=sys.stderr)
    elif what == "exit":
        os._exit(3)
    elif what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "raise":
        raise RuntimeError("the odd job went wrong")
    elif what == "sleep":
        time.sleep(float(argument))
    elif what == "wait":  # until the file is there
        while not os.path.exists(argument):
            time.sleep(0.02)
    elif what == "chatter":  # until the file is there
        while not os.path.exists(argument):
            print("and another thing", "." * 100)
            time.sleep(0.01)
    elif what == "atexit":
        atexit.register(lambda: (time.sleep(0.3), open(argument, "w").close()))
    elif what == "look":
        seen = {"environ": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv}
        with open(argument, "w") as out:
            json.dump(seen, out)


@CrewBase
class Odd:
    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @agent
    def worker(self) -> Agent:
        return Agent(config=self.agents_config["worker"])

    @task
    def first_task(self) -> Task:
        return Task(config=self.tasks_config["first_task"], callback=self.odd_job)

    @task
    def second_task(self) -> Task:
        return Task(config=self.tasks_config["second_task"])

    def odd_job(self, output):
        inputs = self.built._inputs or {}
        act(inputs.get("act"), inputs.get("argument", ""))

    @crew
    def crew(self) -> Crew:
        self.built = Crew(agents=self.agents, tasks=self.tasks)
        self.built.after_kickoff_callbacks = [self.enlarge]
        return self.built

    def enlarge(self, result):
        inputs = self.built._inputs or {}
        if inputs.get("act") == "big":
            result.raw = "big " * (int(inputs["argument"]) // 4)
        return result
