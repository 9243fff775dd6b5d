from a_package_that_is_not_installed import something
from crewai.project import CrewBase


@CrewBase
class Broken:
    pass
