"""The pure core: which answer a prompt gets."""

import json
import re

import pytest

from crewcast.stub_llm.answers import answer
from crewcast.stub_llm.prompt import read

SYSTEM = (
    "You are {topic} Market Researcher\n. You're a careful researcher.\n\n"
    "Your personal goal is: Find what drives demand for {topic}"
)
TASK = (
    "\nCurrent Task: Research the market for {topic} with {audience} in mind.\n\n\n"
    "This is the expected criteria for your final answer: A list with 4 bullet points about {topic}\n\n"
    "you MUST return the actual complete content as the final answer, not a summary."
)
PLAIN = "\n\nProvide your complete response:"
REACT = (
    "\nYou ONLY have access to the following tools, and should NEVER make up tools that are not listed here:\n\n"
    'Tool Name: save_note\nTool Arguments: {"properties": {"text": {"type": "string"}}}\n'
    "Tool Description: Saves a note about the market.\n--\n"
    'Tool Name: search_market\nTool Arguments: {\n  "properties": {"query": {"type": "string"}, '
    '"limit": {"type": "integer", "minimum": 1, "maximum": 5}},\n  "required": ["query", "limit"], '
    '"type": "object"\n}\nTool Description: Searches market research for demand.\n\n'
    "IMPORTANT: Use the following format in your response:\n\n```\nThought: you should always think about what to "
    "do\nAction: the action to take, only one name of [save_note, search_market], just the name, exactly as it's "
    "written.\nAction Input: the input to the action, just a simple JSON object\nObservation: the result of the "
    "action\n```\n\nOnce all necessary information is gathered, return the following format:\n\n```\nThought: I now "
    "know the final answer\nFinal Answer: the final answer to the original input question\n```"
)
BEGIN = "\n\nBegin! This is VERY important to you, use the tools available\n\nThought:"
SEARCH = {
    "type": "function",
    "function": {
        "name": "search_market",
        "description": "Searches market research.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}, "audience": {"type": "string"}},
            "required": ["query", "audience"],
        },
    },
}
OTHER = {"type": "function", "function": {"name": "send_mail", "description": "Sends a mail."}}


def chat(topic="rooftop solar", audience="hotel owners", system="", user=PLAIN):
    return [
        {"role": "system", "content": SYSTEM.format(topic=topic) + system},
        {"role": "user", "content": TASK.format(topic=topic, audience=audience) + user},
    ]


def test_the_same_prompt_gets_the_same_answer_and_another_prompt_another_one():
    assert answer(chat()) == answer(chat())
    texts = {
        answer(chat(topic)).text for topic in ("rooftop solar", "urban beekeeping", "AI agents for law firms")
    }
    assert len(texts) == 3


@pytest.mark.parametrize("topic", ["rooftop solar", "urban beekeeping", "honey", "Solarenergie für Städte"])
def test_an_answer_is_about_the_topic_and_has_the_points_asked_for(topic):
    text = answer(chat(topic)).text
    assert topic in text
    assert len(re.findall(r"^- ", text, re.MULTILINE)) == 4
    assert "Final Answer:" not in text


def test_a_text_tool_loop_calls_the_closest_tool_once_and_then_answers():
    messages = chat(system=REACT, user=BEGIN)
    first = answer(messages).text
    called = re.fullmatch(r"Thought: .+\nAction: search_market\nAction Input: (\{.+\})", first)
    assert called
    arguments = json.loads(called[1])
    assert "rooftop solar" in arguments["query"]
    assert 1 <= arguments["limit"] <= 5

    observed = {"role": "assistant", "content": f"{first}\nObservation: 4,812 roofs suit.\nAction: none"}
    last = answer([*messages, observed]).text
    thought, _, final = last.partition("\nFinal Answer: ")
    assert thought.startswith("Thought: ")
    assert "4,812 roofs suit" in final
    assert "Action:" not in final


def test_an_observation_sent_as_a_message_of_its_own_counts_too():
    messages = chat(system=REACT, user=BEGIN)
    called = {"role": "assistant", "content": answer(messages).text}
    observed = {"role": "user", "content": "Observation: 4,812 roofs suit."}
    assert "4,812 roofs suit" in answer([*messages, called, observed]).text.partition("Final Answer:")[2]


def test_a_forced_final_answer_ends_a_loop_that_has_called_nothing():
    force = {"role": "user", "content": "Now it's time you MUST give your absolute best final answer."}
    text = answer([*chat(system=REACT, user=BEGIN), force]).text
    assert "Final Answer: " in text
    assert "Action:" not in text


@pytest.mark.parametrize(
    "held",
    [
        {
            "type": "json_schema",
            "json_schema": {"schema": {"type": "object", "properties": {"berths": {"type": "integer"}}}},
        },
        {"type": "json_object"},
    ],
)
def test_a_model_held_to_json_takes_no_step_of_a_text_tool_loop(held):
    messages = chat(system=REACT, user=BEGIN)
    assert isinstance(json.loads(answer(messages, response_format=held).text), dict)
    assert "Action: search_market" in answer(messages, response_format={"type": "text"}).text


def test_a_native_tool_is_called_once_with_words_of_the_task():
    messages = chat(user="")
    turn = answer(messages, [OTHER, SEARCH])
    assert turn.text == ""
    (call,) = turn.tool_calls
    assert call.name == "search_market"
    assert "rooftop solar" in json.loads(call.arguments)["query"]

    said = {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
    result = {"role": "tool", "tool_call_id": call.id, "content": "4,812 roofs suit."}
    last = answer(
        [*messages, {"role": "assistant", "content": None, "tool_calls": [said]}, result], [OTHER, SEARCH]
    )
    assert last.tool_calls == ()
    assert "4,812 roofs suit" in last.text


def test_tools_that_the_task_names_are_called_together_unless_that_is_forbidden():
    messages = [{"role": "user", "content": "Use search_market on tea, then send mail about it."}]
    together = answer(messages, [OTHER, SEARCH])
    assert [call.name for call in together.tool_calls] == ["send_mail", "search_market"]
    assert len({call.id for call in together.tool_calls}) == 2
    alone = answer(messages, [OTHER, SEARCH], parallel_tool_calls=False)
    assert len(alone.tool_calls) == 1


def test_tool_choice_is_honoured():
    assert answer(chat(), [SEARCH], tool_choice="none").text
    forced = answer(
        chat(), [SEARCH, OTHER], tool_choice={"type": "function", "function": {"name": "send_mail"}}
    )
    assert [call.name for call in forced.tool_calls] == ["send_mail"]


def test_a_manager_delegates_to_a_coworker_who_exists():
    tool = {
        "type": "function",
        "function": {
            "name": "delegate_work_to_coworker",
            "description": "Delegate a specific task to one of the following coworkers: Writer, Analyst\nThe input",
            "parameters": {
                "properties": {name: {"type": "string"} for name in ("task", "context", "coworker")}
            },
        },
    }
    (call,) = answer(chat(user=""), [tool]).tool_calls
    arguments = json.loads(call.arguments)
    assert arguments["coworker"] == "Writer"
    assert "rooftop solar" in arguments["task"]


def test_a_schema_in_the_prompt_is_answered_in_json():
    schema = json.dumps(
        {"properties": {"title": {"type": "string"}}, "required": ["title"], "type": "object"}
    )
    asked = f"\nFormat your final answer according to the following OpenAPI schema: {schema}\n\nIMPORTANT: keep it."
    assert set(json.loads(answer(chat(user=asked)).text)) == {"title"}
    wrapped = asked.replace(
        schema, json.dumps({"type": "json_schema", "json_schema": {"schema": json.loads(schema)}})
    )
    assert set(json.loads(answer(chat(user=wrapped)).text)) == {"title"}


def test_json_object_is_json():
    made = json.loads(answer(chat(), response_format={"type": "json_object"}).text)
    assert "rooftop solar" in made["answer"]


@pytest.mark.parametrize(
    ("feedback", "outcome"),
    [("Looks good, I approve", "approved"), ("This is wrong, do it again", "rejected"), ("hm", "approved")],
)
def test_human_feedback_is_read_as_one_of_the_outcomes(feedback, outcome):
    text = f"Determine which outcome matches.\n\nFeedback: {feedback}\n\nPossible outcomes: approved, rejected\n\nRespond"
    assert answer([{"role": "user", "content": text}]).text == outcome


@pytest.mark.parametrize(
    ("goal", "message", "said"),
    [
        ("Return exactly one bare value: followup or done. Do not explain.", "We need no followup, none.", "followup"),
        ("Return exactly one bare value: revise, or approved. Do not explain.", "A draft on tea.", "approved"),
        ("Answer with only one of these words: 'sea', 'lake', 'river'", "The lake is deep.", "lake"),
    ],
)  # fmt: skip
def test_an_agent_that_routes_says_one_of_the_values_and_no_more(goal, message, said):
    system = f"You are Router. You route.\nYour personal goal is: {goal}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": message}]
    assert answer(messages).text == said


def test_a_report_that_is_told_to_have_exactly_one_page_is_still_a_report():
    text = answer([{"role": "user", "content": "Write exactly one page on tea: taste, trade."}]).text
    assert len(text.split()) > 20


def test_an_answer_that_comes_back_within_a_task_is_quoted_and_does_not_change_the_topic():
    messages = chat(system=REACT, user=BEGIN)
    called = {"role": "assistant", "content": answer(messages).text}
    observed = {"role": "user", "content": "Observation: 4,812 roofs suit."}
    earlier = answer([*messages, called, observed]).text.partition("Final Answer: ")[2]
    task = f"Current Task: Write a letter on urban beekeeping. What happened: {earlier}"
    text = answer([{"role": "user", "content": task}]).text
    assert text.count("urban beekeeping") > 3
    assert '"4,812 roofs suit"' in text


def test_what_an_output_built_on_is_passed_along_a_chain():
    context = 'Here is what matters. It builds on what came before: "42 hives".\n\n- Beekeepers need permits.'
    text = answer(chat(user=f"\n\nThis is the context you're working with:\n{context}{PLAIN}")).text
    assert 'what came before: "42 hives"' in text


def test_a_quotation_that_a_task_gives_is_repeated_whole_or_not_at_all():
    task = 'Current Task: Answer the ticket: "My lamp is late. I need it soon."'
    text = answer([{"role": "user", "content": task}]).text
    assert "The request was: Answer the ticket." in text


@pytest.mark.parametrize(
    ("role", "task", "subject"),
    [
        # The verb of an instruction, and what the role only has the letters of.
        ("Menu Planner", "Plan the school lunches. Plan a week of school lunches.", "school lunches"),
        # A part of the topic that the role says too is no topic of its own.
        ("School Cook", "Praise school lunches. Sell school lunches.", "school lunches"),
        ("Clerk", "Use make_tea for the kettle, then make_tea for the pot and the kettle.", "kettle"),
        ("Clerk", "Praise the kitchen's lamp and the kitchen's door.", "kitchen"),
    ],
)
def test_the_topic_is_what_the_task_is_about(role, task, subject):
    text = answer([{"role": "user", "content": f"You are {role}. x\nCurrent Task: {task}"}]).text
    found = re.search(
        r"^(?:Here is what matters about|These notes on|The picture for)? ?(.+?)(?:\.| answer| is clearer|:)",
        text,
    )
    assert found
    assert found[1].lower() == subject


def test_a_tool_call_that_crewai_could_not_parse_keeps_its_name_and_arguments():
    text = 'Only tools available:\n### TEXT \nThought: x\nAction: search\nAction Input: {"query": "tea"}'
    schema = {
        "type": "object",
        "properties": {"tool_name": {"type": "string"}, "arguments": {"type": "object"}},
    }
    made = answer(
        [{"role": "user", "content": text}],
        response_format={"type": "json_schema", "json_schema": {"name": "t", "schema": schema}},
    )
    assert json.loads(made.text) == {"tool_name": "search", "arguments": {"query": "tea"}}


def test_a_plan_is_always_ready():
    asked = "Create a plan:\n\n## Task\nDescribe tea.\n\n## Rules\nnone\n\nAfter your plan, state READY or NOT READY."
    text = answer([{"role": "user", "content": asked}]).text
    assert "Describe tea" in text
    assert text.endswith("READY: I am ready to execute the task.")


def test_the_context_of_earlier_tasks_reaches_the_answer():
    context = '\n\nThis is the context you\'re working with:\n- Beekeepers need permits.\n\n----------\n\nThe x tool reported: "42 hives".'
    text = answer(chat(user=context + PLAIN)).text
    assert "Beekeepers need permits" in text
    assert "42 hives" in text


def test_reading_a_prompt_separates_crewais_words_from_the_users():
    prompt = read(chat(user="\n\nThis is the context you're working with:\nEarlier work." + PLAIN))
    assert prompt.role == "rooftop solar Market Researcher"
    assert prompt.task == "Research the market for rooftop solar with hotel owners in mind."
    assert prompt.expected == "A list with 4 bullet points about rooftop solar"
    assert prompt.context == "Earlier work."


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user"}],
        [{"role": "user", "content": ""}],
        [{"role": "user", "content": [{"type": "text", "text": "Describe tea."}, {"type": "image_url"}]}],
        [{"role": "assistant", "content": "Hello"}],
        [{"role": "user", "content": "the of and"}],
        [{"role": "user", "content": "Action Input: schema { Tool Name: x\nTool Arguments: {"}],
    ],
)
def test_odd_messages_still_get_an_answer(messages):
    assert answer(messages).text
