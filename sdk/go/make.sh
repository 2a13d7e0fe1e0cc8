#!/usr/bin/env bash
# Generates the stubs and compiles the examples, into build/. `./make.sh test` also vets and runs the tests. `./make.sh go ...` runs
# any command of go with the settings of this build.
#
# It takes Debian's Go packages where they are installed, without modules; else, or with GO111MODULE=on, the modules of go.mod.
set -euo pipefail

readonly HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly PROTOS="$(cd "$HERE/../../protos" && pwd)"
readonly TESTS="$HERE/../../tests/conformance"
readonly DEBIAN=/usr/share/gocode
readonly BUILD="$HERE/build"
readonly CALLER="$PWD"
readonly PACKAGES=(colonies colonies/examples/client colonies/examples/executor)

missing() {
  echo "sdk/go: $1 is missing. On Debian: apt-get install golang golang-google-grpc-dev golang-google-protobuf-dev" \
    "golang-golang-x-crypto-dev golang-github-burntsushi-toml-dev protobuf-compiler protoc-gen-go protoc-gen-go-grpc. Elsewhere: Go 1.21, protoc, and" \
    "go install google.golang.org/protobuf/cmd/protoc-gen-go@latest google.golang.org/grpc/cmd/protoc-gen-go-grpc@latest" >&2
  exit 1
}

if command -v go >/dev/null; then PATH="$PATH:$(go env GOPATH)/bin"; fi
for program in go protoc protoc-gen-go protoc-gen-go-grpc; do
  command -v "$program" >/dev/null || missing "$program"
done

if [[ "${GO111MODULE:-}" != on && -d $DEBIAN/src/google.golang.org/grpc ]]; then
  for package in google.golang.org/protobuf golang.org/x/crypto/sha3 github.com/BurntSushi/toml; do
    [[ -d $DEBIAN/src/$package ]] || missing "$package"
  done
  mkdir -p "$BUILD/gopath/src"
  # Without modules a package is found by where it is.
  ln -sfn "$HERE" "$BUILD/gopath/src/colonies"
  export GO111MODULE=off GOPATH="$BUILD/gopath:$DEBIAN"
else
  export GO111MODULE=on
  [[ -e $HERE/go.sum ]] || NEED_TIDY=yes
fi
cd "$HERE"

# Generates again only after a change: the compiler looks at times.
stubs() {
  local stamp="$BUILD/.stubs" proto
  local -a protos=() options=()
  while IFS= read -r proto; do
    protos+=("$proto")
    # colonies/auth/v1/auth_service.proto -> colonies/build/authv1
    options+=("M$proto=colonies/build/$(cut -d/ -f2,3 <<<"$proto" | tr -d /)")
  done < <(cd "$PROTOS" && find colonies -name '*.proto' | sort)
  if [[ -e $stamp && -z "$(find "$PROTOS/colonies" "$HERE/make.sh" -newer "$stamp" -print -quit)" ]]; then return; fi
  rm -rf "$BUILD"/*v1
  protoc -I "$PROTOS" \
    --go_out="$BUILD" --go_opt="$(IFS=, && echo "module=colonies/build,${options[*]}")" \
    --go-grpc_out="$BUILD" --go-grpc_opt="$(IFS=, && echo "module=colonies/build,${options[*]}")" \
    "${protos[@]}"
  touch "$stamp"
}

mkdir -p "$BUILD"
# One at a time: tests may build from several processes.
exec 9>"$BUILD/.lock"
if command -v flock >/dev/null; then flock 9; fi
stubs
if [[ -n "${NEED_TIDY:-}" ]]; then go mod tidy; fi
case "${1:-build}" in
  build)
    go build -trimpath -o "$BUILD/bin/" "${PACKAGES[@]:1}"
    ;;
  test)
    unformatted="$(gofmt -l ./*.go examples "$TESTS/drivers/go" "$TESTS/signatures")"
    [[ -z $unformatted ]] || { echo "gofmt: $unformatted" >&2; exit 1; }
    go vet "${PACKAGES[@]}"
    go vet "$TESTS"/drivers/go/*.go
    go vet "$TESTS/signatures/runner.go"
    go test "${@:2}" colonies
    ;;
  go)
    # Paths are those of whoever called.
    cd "$CALLER"
    exec "$@"
    ;;
  *)
    echo "sdk/go/make.sh: build, test or go, not $1" >&2
    exit 2
    ;;
esac
