#!/usr/bin/env bash
# Makes what send.py needs, in folders of its own that git ignores: an environment with gRPC (.venv) and the API's
# types (generated). Needs Python 3.9 or newer and its package index.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

python="${PYTHON:-python3}"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 1 --timeout 15 \
    --requirement requirements.txt
rm -rf generated && mkdir generated
.venv/bin/python -m grpc_tools.protoc --proto_path=../../../../proto --python_out=generated --grpc_python_out=generated \
    ../../../../proto/mailfleet/v1/*.proto
