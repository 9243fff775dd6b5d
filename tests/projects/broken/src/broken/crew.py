from crewai.project import CrewBase

from a_package_that_is_not_installed import something


@CrewBase
class Broken:
    pass
