# frozen_string_literal: true

Gem::Specification.new do |spec|
  spec.name = "colonies"
  spec.version = "0.1.0"
  spec.summary = "Colonies for Ruby: signed calls and executors"
  spec.authors = ["Colonies"]
  spec.license = "Apache-2.0"
  spec.required_ruby_version = ">= 3.1"
  # `make.sh` makes what is in build/.
  spec.files = Dir["colonies.rb", "colonies/*.rb", "build/**/*.rb", "README.md"]
  spec.require_paths = ["."]
  spec.add_dependency "google-protobuf", ">= 3.21", "< 5"
  spec.add_dependency "grpc", ">= 1.51", "< 2"
end
