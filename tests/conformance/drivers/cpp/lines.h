// What the driver writes: JSON objects, a line each.
#pragma once

#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>

#include "colonies/error.h"

// What is written keeps the order in which it is put together.
using Line = nlohmann::ordered_json;

inline void write(const Line& line) {
  static std::mutex writing;
  const std::string text = line.dump(-1, ' ', false, Line::error_handler_t::replace) + "\n";
  const std::lock_guard lock(writing);
  std::cout << text << std::flush;
}

inline Line described(const colonies::Error& error) {
  Line fields = Line::array();
  for (const auto& each : error.fields) fields.push_back({{"field", each.field}, {"description", each.description}});
  return {{"code", colonies::code_name(error.code)},
          {"reason", error.reason},
          {"message", error.what()},
          {"metadata", error.metadata},
          {"fields", fields}};
}

inline Line plain_error(const std::string& code, const std::string& message) {
  return {{"code", code}, {"reason", ""}, {"message", message}, {"metadata", Line::object()}, {"fields", Line::array()}};
}
