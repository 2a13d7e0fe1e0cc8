#!/bin/bash
# Builds the stubs and the C++ SDK into build/, with its examples, its unit tests and the driver of the conformance kit; or what
# is named: `make.sh unit`. JOBS sets how many compilers run at once.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
needs() { # a package, and the check that it is there
  "${@:2}" >/dev/null 2>&1 || missing+=("$1")
}
needs g++ command -v g++
needs make command -v make
needs cmake command -v cmake
needs pkg-config command -v pkg-config
needs protobuf-compiler command -v protoc
needs protobuf-compiler-grpc command -v grpc_cpp_plugin
needs libgrpc++-dev pkg-config --exists grpc++
needs libprotobuf-dev pkg-config --exists protobuf
needs libssl-dev pkg-config --atleast-version=3 openssl
needs nlohmann-json3-dev pkg-config --atleast-version=3.11 nlohmann_json
if ((${#missing[@]})); then
  echo "the C++ SDK cannot be built; on Debian 12: apt-get install ${missing[*]}" >&2
  exit 1
fi

[[ build/Makefile -nt CMakeLists.txt ]] || cmake -S . -B build >/dev/null
exec make -s -C build -j "${JOBS:-$(nproc)}" "$@"
