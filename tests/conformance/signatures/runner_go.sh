#!/usr/bin/env bash
# Compiles runner.go with the settings of the SDK, and runs it.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
sdk="$here/../../../sdk/go"
"$sdk/make.sh" go build -trimpath -o "$sdk/build/bin/signature-runner" "$here/runner.go"
exec "$sdk/build/bin/signature-runner"
