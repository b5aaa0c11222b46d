"""`python -m stt_client.cli`: the `stt` command if it isn't on the PATH."""

import sys

from stt_client.cli import main

sys.exit(main())
