import os
import sys
from random import randint

sys.path.append(os.path.dirname(__file__))

from crewai.flow.flow import Flow, listen, start
from pydantic import BaseModel

from crews.poem_crew.poem_crew import PoemCrew


class PoemState(BaseModel):
    topic: str = "bees"
    sentence_count: int = 0
    poem: str = ""


class PoemFlow(Flow[PoemState]):

    @start()
    def pick_sentence_count(self):
        print("Picking the number of sentences")
        self.state.sentence_count = self.state.sentence_count or randint(1, 5)

    @listen(pick_sentence_count)
    def write_poem(self):
        result = (
            PoemCrew()
            .crew()
            .kickoff(inputs={"topic": self.state.topic, "sentence_count": self.state.sentence_count})
        )
        self.state.poem = result.raw

    @listen(write_poem)
    def save_poem(self):
        with open("poem.txt", "w") as f:
            f.write(self.state.poem)
        return f"{self.state.sentence_count} sentences about {self.state.topic} are in poem.txt"


def kickoff():
    PoemFlow().kickoff()


def plot():
    PoemFlow().plot()


if __name__ == "__main__":
    kickoff()
