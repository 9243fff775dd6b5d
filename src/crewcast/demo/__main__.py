import sys

from crewcast.demo.show import main

sys.exit(main())
