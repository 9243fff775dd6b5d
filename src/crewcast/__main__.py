import sys

from crewcast.cli import main

sys.exit(main())
