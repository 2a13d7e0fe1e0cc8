#!/bin/sh
# Generates the stubs of protos/ into sdk/ruby/build/. Does nothing when they are newer than what they are made of.
set -eu
cd "$(dirname "$0")"

protos=../../protos
stamp=build/.made

for program in ruby protoc grpc_ruby_plugin; do
    command -v "$program" >/dev/null || {
        echo "$program is not installed: apt-get install ruby ruby-grpc ruby-grpc-tools protobuf-compiler" >&2
        exit 1
    }
done
ruby -e 'require "grpc"' 2>/dev/null || {
    echo "Ruby has no gRPC: apt-get install ruby-grpc ruby-google-protobuf (or gem install grpc google-protobuf)" >&2
    exit 1
}

if [ -e "$stamp" ] && [ -z "$(find "$protos/colonies" make.sh -newer "$stamp" | head -n 1)" ]; then
    exit 0
fi

# Made beside the old ones and put in their place when they are whole.
rm -rf build.new
mkdir build.new
find "$protos/colonies" -name '*.proto' -print0 | xargs -0 protoc -I "$protos" \
    --ruby_out=build.new --grpc_out=build.new --plugin=protoc-gen-grpc="$(command -v grpc_ruby_plugin)"
touch build.new/.made
rm -rf build
mv build.new build
