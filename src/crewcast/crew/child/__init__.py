"""The only code of Crewcast that imports crewai.

It runs in the project's own Python environment, where Crewcast is not installed: the standard library beside
CrewAI, the syntax of Python 3.10, and no import from `crewcast`. `boot.py` loads it as `_crewcast_child`.

    boot.py      the script: loads the package under its private name
    host.py      one process per environment: imports crewai once, then forks
    preload.py   what the host imports for its children
    birth.py     from the fork to a process of its own: descriptors, signals, the end that follows the host's
    channel.py   JSON lines with the server, acknowledgements
    wire.py      any Python value as JSON
    job.py       describe a crew, or run it
    run.py       a run from its kickoff, or from where it was left, to its end
    journal.py   what a run keeps, for a process that goes on with it
    outputs.py   what a task returned, as JSON and back
    reviews.py   a person approves what a task has made, in another process
    packing.py   any value as JSON that another process makes the same value of
    flow_journal.py what a run of a flow keeps
    flow_crews.py the crews of a flow, of which each answers again, goes on, or asks a person
    feedback.py  a person judges what a flow's method returned
    stops.py     the server's word, its silence and a budget end a run
    internals.py what of CrewAI's insides these lean on
    project.py   from a folder to a crew
    tasks.py     stable task ids, what is finished
    tools.py     each started tool call ends in exactly one result
    threads.py   a thread works for the task that had it work
    events.py    CrewAI's events as lines
    extractors.py what a line says of an event, by its type
    stub.py      every LLM of the project on an offline one
    errors.py    an exception as the project's developer wants to read it
"""
