// User data on its way to and from the wire. The services carry a `Value` unopened; here JSON becomes Json, and bytes a
// binary Json (`bytes`).
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "colonies/scheduler/v1/spec.pb.h"

namespace colonies {

using Json = nlohmann::json;
using scheduler::v1::Value;

// Bytes that are no JSON, as an argument or an output.
Json bytes(std::string_view data);

// Bytes as they are, everything else as the shortest JSON. Throws Refused for what JSON cannot carry: a number that is not
// finite, text that is not UTF-8, bytes inside of an array or an object, or more than 1 000 levels.
Value encode(const Json& value);

// Throws Refused if the data is not JSON as above, holds an integer of more than 64 bits, or is of another media type.
Json decode(const Value& value);

}  // namespace colonies
