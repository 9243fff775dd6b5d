"""What of CrewAI's insides a review and a resumed run lean on; looked up once, before anything depends on it."""

import importlib
from typing import Any

# A person is asked through these.
ASKING = (
    "crewai.core.providers.human_input:_provider",
    "crewai.core.providers.human_input:set_provider",
)
# What a task is told is added to by these.
HOOKS = ("crewai.hooks:register_hook", "crewai.hooks:InterceptionPoint.PRE_STEP")
# A run goes on in another process by these.
RESUMING = (
    "crewai:Crew.checkpoint_kickoff_event_id",
    "crewai:Crew._get_execution_start_index",
    "crewai:Crew._get_agent_to_use",
    "crewai:Crew._kickoff_event_id",
    "crewai:Crew._handle_crew_planning",
    "crewai:Crew.before_kickoff_callbacks",
    "crewai:Task.execute_async",
    "crewai:Task.execute_sync",
    "crewai.llms.base_llm:BaseLLM._token_usage",
    "crewai.utilities.llm_utils:create_llm",
    "crewai.events.event_context:restore_event_scope",
    "crewai.tasks.conditional_task:ConditionalTask.get_skipped_task_output",
    "crewai.tasks.conditional_task:ConditionalTask.condition",
    "crewai.tasks.task_output:TaskOutput.json_dict",
    "crewai.utilities.constants:NOT_SPECIFIED",
    *HOOKS,
)
# The task that waited goes on in another process by these.
REVIEWING = (
    "crewai.agents.agent_executor:AgentExecutor._setup_messages",
    "crewai.agents.agent_executor:AgentExecutor._invoke_loop",
    "crewai.agents.agent_executor:AgentExecutor._ainvoke_loop",
    "crewai.agents.agent_executor:AgentExecutor._format_feedback_message",
    "crewai.agents.agent_executor:AgentExecutor._is_feedback_iteration",
    "crewai.agents.agent_executor:AgentExecutor.ask_for_human_input",
    "crewai.agents.agent_executor:AgentExecutorState.is_finished",
    "crewai.agents.agent_executor:AgentExecutorState.current_answer",
    "crewai.agents.agent_executor:AgentExecutorState.messages",
    "crewai.agents.parser:AgentFinish",
    "crewai.tools.tool_failure:active_tool_failures",
    "crewai.tools.tool_failure:ToolFailureRecord",
    "crewai:Task._guardrail_retry_counts",
    "crewai:Task.retry_count",
    "crewai:Task.guardrail_max_retries",
    "crewai:Task._execute_task_async",
)
# The crews of a flow go on in another process by these.
FLOWS = (
    *RESUMING,
    "crewai:Crew.kickoff",
    "crewai:Crew.akickoff",
    "crewai:Crew.key",
    "crewai.events.event_context:_event_id_stack",
)
# What a method of a flow asks of a person goes through these.
FEEDBACK = (
    "crewai.flow.flow:Flow._execute_method",
    "crewai.flow.flow:Flow._run_human_feedback_step",
    "crewai.flow.flow:Flow._resolve_feedback_provider",
    "crewai.flow.flow:Flow._finalize_human_feedback",
    "crewai.flow.flow:Flow._store_feedback_lessons",
    "crewai.flow.flow:Flow._human_feedback_method_outputs",
    "crewai.flow.flow:Flow.human_feedback_history",
    "crewai.flow.flow:Flow.last_human_feedback",
    "crewai.flow.flow:Flow._state",
    "crewai.flow.human_feedback:HumanFeedbackResult",
)


def missing(names: tuple[str, ...]) -> list[str]:
    """Those that this release does not have."""
    return [name.partition(":")[2] for name in names if not _is_there(name)]


def version() -> str:
    return str(importlib.import_module("crewai").__version__)


def _is_there(name: str) -> bool:
    module, _, path = name.partition(":")
    try:
        value: Any = importlib.import_module(module)
    except ImportError:
        return False
    for part in path.split("."):
        # Pydantic keeps fields and private attributes away from the class itself.
        if part in getattr(value, "model_fields", ()) or part in getattr(value, "__private_attributes__", ()):
            return True
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True
