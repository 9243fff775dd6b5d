"""What can go wrong, named by what the caller does next.

    CrewcastError
    ├── UsageError         the person corrects the command, the settings or the project
    ├── StoreError         the operator looks at the data folder or the database
    │   ├── StoreHeld      another server holds it: stop that one, or name another folder
    │   ├── StoreFull      no room: nothing was written; make room and repeat
    │   ├── StoreAway      the database does not answer: nothing was written; repeat until it does
    │   └── StoreUnusable  read-only, damaged, or of a newer version
    ├── SealError          the operator restores the master key; what was sealed with it is not sent
    ├── SignatureError     the subscriber answers 401 and drops the request
    └── InProgress         the subscriber answers 503; the event comes again

Expected results (a lost lease, a refused address, a failed attempt) are values, not exceptions.
"""


class CrewcastError(Exception):
    """The root: its text is one or a few sentences that say what to do."""


class UsageError(CrewcastError):
    pass


class StoreError(CrewcastError):
    pass


class StoreHeld(StoreError):
    pass


class StoreFull(StoreError):
    pass


class StoreAway(StoreError):
    pass


class StoreUnusable(StoreError):
    pass


class SealError(CrewcastError):
    pass


class SignatureError(CrewcastError):
    pass


class InProgress(CrewcastError):
    pass
