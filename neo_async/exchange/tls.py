"""A certificate of one's own, for an exchange that speaks TLS on this machine."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from ipaddress import ip_address
from pathlib import Path

from neo_async.errors import UsageError
from neo_async.system import files

_ENVIRONMENT = ("PATH", "HOME", "TMPDIR", "LANG", "SYSTEMROOT", "OPENSSL_CONF", "LD_LIBRARY_PATH")
"""Variables that the openssl command inherits: the rest of this process's environment may hold the
MPIN, the TOTP secret and the secrets of Kite and the bank."""


def self_signed(directory: Path, host: str = "127.0.0.1") -> tuple[ssl.SSLContext, Path]:
    """Make a key and a certificate for `host` in `directory`, good for 30 days.

    Returns the server's context and the file a client has to trust (`Endpoints.ca_file`). Needs
    the `openssl` command, and blocks for the moment that it runs; raises UsageError when the
    command is missing or fails.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        raise UsageError(
            "TLS without a certificate needs the openssl command, and there is none on the PATH: "
            "install it, or hand in a context of your own"
        )
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    command = [openssl, "req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=neo_async exchange"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-addext", f"subjectAltName={_alternative_name(host)},DNS:localhost"]
    # Strict verification, the default since Python 3.13, wants an authority to be marked as one.
    command += ["-addext", "keyUsage=critical,digitalSignature,keyCertSign"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    try:
        files.make_private(key)
    except OSError as error:
        raise UsageError(f"no key can be made in {directory}: {error.strerror}") from error
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if run.returncode != 0:
        raise UsageError(f"openssl made no certificate: {run.stderr.strip()}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, certificate


def _alternative_name(host: str) -> str:
    try:
        return f"IP:{ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"
