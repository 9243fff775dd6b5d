"""Projects as strangers write them, served without an edit: whatever their layout, names, line ends and habits.

Each was run as its author would run it, with CrewAI alone; what is expected here follows from its text.
"""

import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.receiver import Receiver, Request, check_lanes, first_deliveries
from tests.support.server import ServerProcess

PROJECTS = Path(__file__).parents[1] / "projects" / "strangers"
FLAGS = ("--stub-llm", "--stub-delay", "0")


@dataclass(frozen=True)
class Stranger:
    """A project and what its author knows of it.

    `asks` are the input names if `inputs` does not have them all. `tool` is as CrewAI names it to models: lower case,
    ASCII, underscores. It is called in the tasks of `uses`, and `says` is in its result. `writes` are the files that
    a run makes. `returns` is the result of a run where that is not the last task's output.
    """

    folder: str
    inputs: dict[str, Any]
    tasks: tuple[str, ...]
    agents: tuple[str | None, ...]
    tool: str
    uses: tuple[str, ...]
    says: str
    writes: tuple[str, ...] = ()
    asks: tuple[str, ...] | None = None
    returns: str | None = None


STRANGERS = {
    # A script without metadata: crew, agents and tasks at the top of modules, which import each other absolutely.
    "trip": Stranger(
        folder="trip_planner",
        inputs={"origin": "Graz", "city": "Porto", "days": 3, "interests": "tiles and trams"},
        tasks=("task-1", "task-2"),
        agents=("Local Expert at Porto", "Amazing Travel Concierge"),
        tool="city_guide",
        uses=("task-1",),
        says="City guide of 2024: ",
        writes=("trip_plan.md",),
    ),
    # A package that no import statement can name, Poetry's metadata, accents and spaces in every name and path.
    "prices": Stranger(
        folder="My Crew (v2)",
        inputs={"rayon": "épicerie", "semaine": "12"},
        tasks=("Relevé des prix", "synthèse"),
        agents=("Veilleur de prix, rayon épicerie", "Rédactrice du bulletin"),
        tool="lecteur_de_prix_n1",
        uses=("Relevé des prix",),
        says="Miel de châtaignier;9,80 €",
        writes=("rapports/semaine en cours/synthèse.md",),
    ),
    # Written on Windows: CRLF everywhere, byte order marks, quotes in .env; crew.py at the top.
    "newsletter": Stranger(
        folder="Newsletter",
        inputs={"topic": "Äpfel"},
        tasks=("look_back", "write_issue"),
        agents=("Archivist für Äpfel", "Editor"),
        tool="archiv",
        uses=("look_back",),
        says="Der Wochenblick: 3 issues, the last one edited by Jana Grün",
        writes=("out/issue.md",),
    ),
    # A .venv of its own with a package that is nowhere else; its tool tells the interpreter.
    "invoices": Stranger(
        folder="invoice-checker",
        inputs={"invoice": "No. 4711 over 746 DKK"},
        tasks=("convert_task", "verdict_task"),
        agents=("Accountant", "Accountant"),
        tool="exchange_rates",
        uses=("convert_task", "verdict_task"),
        says="1 EUR = 7.46 DKK, source: acme-rates on {folder}/.venv/bin/python",
        writes=("verdict.md",),
    ),
    # A script that kicks its crew off when it is imported, and puts a key of its own into the environment.
    "digest": Stranger(
        folder="stock_digest",
        inputs={"company": "Acme Steel", "reader": "the board"},
        tasks=("task-1", "task-2"),
        agents=("Market Watcher", "Digest Writer"),
        tool="closing_price",
        uses=("task-1",),
        says="Closing price: 41.20 EUR, up 3 percent",
        writes=("digest.md",),
    ),
    # The same in a method, inside `except Exception`; its words are in f-strings, so it asks for nothing.
    "support": Stranger(
        folder="support_desk",
        inputs={},
        tasks=("diagnose", "task-2"),
        agents=("Support Agent", "Support Agent"),
        tool="search_manual",
        uses=("diagnose", "task-2"),
        says="Blank pages: remove the orange tape from the cartridge.",
    ),
    # A function that builds a crew and kicks it off, and reads the command line.
    "books": Stranger(
        folder="book_club",
        inputs={"genre": "travel", "members": 7},
        tasks=("task-1", "task-2"),
        agents=("travel Librarian", "Host"),
        tool="library_catalogue",
        uses=("task-1",),
        says="Twice on the shelf: The Lighthouse, A Winter in Bruges",
    ),
    # A flow without metadata that appends to sys.path for the crew in its sub-folder.
    "poems": Stranger(
        folder="poem_flow",
        inputs={"topic": "wasps", "sentence_count": 2},
        # The methods before and after the crew are tasks, too; no agent works on them.
        tasks=("pick_sentence_count", "find_rhymes", "write_poem", "save_poem"),
        agents=(None, "Poem Writer", "Poem Writer", None),
        tool="rhyming_dictionary",
        uses=("find_rhymes", "write_poem"),
        says="It rhymes with trees, breeze and cheese",
        writes=("poem.txt",),
        asks=("poem", "sentence_count", "topic"),
        returns="2 sentences about wasps are in poem.txt",
    ),
    # A package for `python -m`, without src; its tool and its context are named in YAML, its output is JSON.
    "meals": Stranger(
        folder="meal-planner",
        inputs={"diet": "vegan", "budget": "40 EUR"},
        tasks=("shop_task", "plan_task"),
        agents=("vegan Cook", "vegan Cook"),
        tool="market_prices",
        uses=("shop_task", "plan_task"),
        says="Leeks 2 EUR, carrots 1 EUR, chanterelles 9 EUR",
        writes=("out/plan.json",),
    ),
    # The crew's class in a file of another name, its YAML beside it.
    "release": Stranger(
        folder="release_notes",
        inputs={"version": "2.0"},
        tasks=("collect", "announce"),
        agents=("Developer", "Developer"),
        tool="read_changelog",
        uses=("collect", "announce"),
        says="2.0  The parser is twice as fast.",
        writes=("NOTES.md",),
    ),
}

# Served without a name, each in a server for itself, at the paths of AMP.
LONERS = {
    "prices": STRANGERS["prices"],
    # main.py only imports the crew, which crew.py builds by hand; its function has an argument.
    "research": Stranger(
        folder="research_assistant",
        inputs={"topic": "bees"},
        tasks=("task-1", "task-2"),
        agents=("Senior Researcher", "Senior Researcher"),
        tool="paper_search",
        uses=("task-1", "task-2"),
        says="2 papers: Bees Can Count (2021), What Wasps Want (2023)",
        writes=("reports/report.md",),
    ),
}

# What can be named instead of a folder, and the stranger that it is.
OBJECTS = {
    "crew": ("main:crew", "trip"),
    "function": ("main:main", "books"),
    "flow-class": ("main:PoemFlow", "poems"),
    "crew-class": ("release_notes:ReleaseNotes", "release"),
}


@dataclass(frozen=True)
class Story:
    """A run of a stranger: `told` are its deliveries in the order of their events."""

    stranger: Stranger
    folder: Path
    asked: Any
    kickoff_id: str
    status: dict[str, Any]
    told: list[Request]
    before: dict[str, bytes]
    after: dict[str, bytes]

    def payloads(self, channel: str) -> list[dict[str, Any]]:
        return [json.loads(one.body) for one in self.told if one.path == f"/{channel}"]

    def steps(self, *kinds: str) -> list[dict[str, Any]]:
        """The steps of these kinds, each with its task's id as `task`."""
        steps = [payload["step"] | {"task": payload.get("task_id")} for payload in self.payloads("step")]
        return [step for step in steps if step["type"] in kinds]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def take_home(stranger: Stranger, home: Path) -> Path:
    """A copy of the project, installed as its author would have it."""
    folder = home / stranger.folder
    shutil.copytree(PROJECTS / stranger.folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if (folder / "libs").is_dir():
        install(folder)
    return folder


def install(folder: Path) -> None:
    """A `.venv` with the packages in `libs/`; CrewAI comes from the environment that the tests run in."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    [site_packages] = (folder / ".venv" / "lib").glob("python*/site-packages")
    shared = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site_packages / "shared.pth").write_text("\n".join(shared))
    for package in (folder / "libs").glob("*/*/"):
        shutil.copytree(package, site_packages / package.name)


def run(server: ServerProcess, crews: dict[str, tuple[Stranger, Path]]) -> dict[str, Story]:
    """One run of each crew, all at once; a crew is addressed by its path."""
    before = {at: files(folder) for at, (_, folder) in crews.items()}
    asked = {at: server.ask("GET", f"{at}/inputs", timeout=90).json for at in crews}
    with Receiver() as receiver:
        ids = {
            at: server.kickoff(stranger.inputs, at=at, **receiver.urls())
            for at, (stranger, _) in crews.items()
        }
        statuses = {at: server.wait_for(kickoff_id, 90, at=at) for at, kickoff_id in ids.items()}
        receiver.wait_for_crew_events(len(crews))
    check_lanes(receiver.requests)
    deliveries = sorted(first_deliveries(receiver.requests), key=lambda one: one.seq)
    return {
        at: Story(
            stranger,
            folder,
            asked[at],
            ids[at],
            statuses[at],
            [one for one in deliveries if one.headers["crewcast-kickoff-id"] == ids[at]],
            before[at],
            files(folder),
        )
        for at, (stranger, folder) in crews.items()
    }


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """All strangers in one server, and their stories by name."""
    home = tmp_path_factory.mktemp("strangers").resolve()
    folders = {name: take_home(stranger, home) for name, stranger in STRANGERS.items()}
    named = [f"{name}={folder}" for name, folder in folders.items()]
    objects = [f"{name}={folders[whose]}/{what}" for name, (what, whose) in OBJECTS.items()]
    with ServerProcess([*named, *objects], tmp_path_factory.mktemp("data"), *FLAGS) as server:
        crews = {f"/crews/{name}": (STRANGERS[name], folder) for name, folder in folders.items()}
        stories = run(server, crews)
        yield server, {name: stories[f"/crews/{name}"] for name in STRANGERS}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The story of a loner, by its name; each is run when it is first asked for."""
    stories: dict[str, Story] = {}

    def story_of(name: str) -> Story:
        if name not in stories:
            stranger = LONERS[name]
            folder = take_home(stranger, tmp_path_factory.mktemp("alone").resolve())
            with ServerProcess(folder, tmp_path_factory.mktemp("data"), *FLAGS) as server:
                stories[name] = run(server, {"": (stranger, folder)})[""]
        return stories[name]

    return story_of


@pytest.fixture(params=[*STRANGERS, *(f"{name} alone" for name in LONERS)])
def story(request) -> Story:
    name, _, alone = request.param.partition(" ")
    if alone:
        return request.getfixturevalue("alone")(name)
    return request.getfixturevalue("together")[1][name]


def test_inputs_are_what_its_text_asks_for(story):
    asks = story.stranger.asks or story.stranger.inputs
    assert story.asked == {"inputs": sorted(asks)}


def test_one_crew_event_ends_the_run_and_is_the_last_one(story):
    [crew] = story.payloads("crew")
    assert crew["status"] == "completed", crew
    assert [one.seq for one in story.told] == list(range(1, len(story.told) + 1))
    assert story.told[-1].path == "/crew"
    assert (story.status["status"], story.status["state"]) == ("completed", "SUCCESS")
    assert story.status["result"] == crew["result"]
    assert [task["task_id"] for task in crew["result"]["tasks"]] == list(story.stranger.tasks)
    assert crew["result"]["output"] == (story.stranger.returns or crew["result"]["tasks"][-1]["output"])


def test_each_task_is_told_in_order_with_its_agent(story):
    told = [(task["task_id"], task.get("agent"), task["status"]) for task in story.payloads("task")]
    expected = zip(story.stranger.tasks, story.stranger.agents, strict=True)
    assert told == [(name, agent, "completed") for name, agent in expected]


def test_the_steps_of_a_task_come_before_its_event_and_after_the_one_before(story):
    order = [(one.path, json.loads(one.body).get("task_id")) for one in story.told if one.path != "/crew"]
    for name, agent in zip(story.stranger.tasks, story.stranger.agents, strict=True):
        end = order.index(("/task", name))
        steps = {("/step", name)} if agent is not None else set()
        assert set(order[:end]) == steps, "an agent takes at least one step, and there are no others"
        del order[: end + 1]
    assert order == []


def test_the_tool_is_called_and_its_result_told(story):
    calls = story.steps("tool_call")
    results = story.steps("tool_result")
    assert {step["task"] for step in calls} == set(story.stranger.uses)
    assert {step["tool"] for step in [*calls, *results]} == {story.stranger.tool}
    assert [(step["task"], step["input"]) for step in calls] == [
        (step["task"], step["input"]) for step in results
    ]
    says = story.stranger.says.format(folder=story.folder)
    assert all(says in step["output"] for step in results), results


def test_files_are_where_the_author_expects_them_and_nothing_else_changed(story):
    written = {name: story.after[name] for name in story.stranger.writes}
    assert all(written.values())
    assert story.after == story.before | written


def test_every_crew_is_listed(together):
    listed = together[0].ask("GET", "/crews").body.decode()
    assert [name for name in (*STRANGERS, *OBJECTS) if f'"{name}"' not in listed] == []


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_that_is_named_is_the_crew_that_is_found(together, name):
    server, stories = together
    whose = OBJECTS[name][1]
    assert server.ask("GET", f"/crews/{name}/inputs", timeout=60).json == stories[whose].asked


def test_the_json_output_is_json_in_the_event_and_in_the_file(together):
    story = together[1]["meals"]
    [crew] = story.payloads("crew")
    plan = json.loads(crew["result"]["output"])
    assert set(plan) == {"title", "meals"}
    assert json.loads(story.after["out/plan.json"]) == plan


def test_the_package_in_the_venv_is_nowhere_else():
    assert importlib.util.find_spec("acme_rates") is None


def test_the_windows_project_is_as_windows_wrote_it():
    written = files(PROJECTS / "Newsletter")
    assert written
    assert [name for name, data in written.items() if data.count(b"\n") != data.count(b"\r\n")] == []
    assert {name for name, data in written.items() if data.startswith(b"\xef\xbb\xbf")} == {
        "crew.py",
        ".env",
        "config/agents.yaml",
    }
