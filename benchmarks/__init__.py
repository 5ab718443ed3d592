"""Benchmarks of the package against its peers; see README.md."""

import os

# The official SDK writes a log into the working folder as soon as it is imported, unless switched
# off.
os.environ["NEO_LOG_FILE_ENABLED"] = "false"
