"""What it costs, against what others cost: see README.md."""

import os

# The official SDK writes a log into the working folder as soon as it is imported, unless told.
os.environ["NEO_LOG_FILE_ENABLED"] = "false"
