// What requests and responses are made with: the same copy of the library that the stubs use.
export * from "@bufbuild/protobuf";
export * from "@bufbuild/protobuf/wkt";
