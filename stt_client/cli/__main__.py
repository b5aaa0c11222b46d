"""`python -m stt_client.cli`: the `stt` command where it isn't on the path."""

import sys

from stt_client.cli import main

sys.exit(main())
