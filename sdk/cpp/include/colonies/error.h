// What can go wrong: calls that were refused, what the SDK itself refuses, and failures that may be tried again.
#pragma once

#include <grpcpp/support/status.h>

#include <chrono>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace colonies {

// A field of the request that broke its bound.
struct FieldViolation {
  std::string field;
  std::string description;
};

// A call failed, with the typed details that the server sent.
class Error : public std::runtime_error {
 public:
  explicit Error(const grpc::Status& status);

  grpc::StatusCode code;
  // A constant for programs, such as ATTEMPT_SUPERSEDED; `metadata` goes with it. Both are empty if no service answered.
  std::string reason;
  std::map<std::string, std::string> metadata;
  std::vector<FieldViolation> fields;
  // When to try again, if the server said so.
  std::optional<std::chrono::milliseconds> retry_delay;

  // Whether the server was out of reach, and did not refuse.
  bool is_outage() const;
  // Whether it is only how often this caller calls: the same call gets through later.
  bool is_pace() const;
  // Whether it is the approval of an executor that is missing, be it for a moment or for good.
  bool is_about_approval() const;
};

// The name of a status code, such as "NOT_FOUND".
std::string code_name(grpc::StatusCode code);

// The SDK itself refuses: a setting, a key or a value cannot be used. Nothing was sent.
class Refused : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// Thrown by an executor's function: the process fails, and trying again may help.
class Retryable : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace colonies
