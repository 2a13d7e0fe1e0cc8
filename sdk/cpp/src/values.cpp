#include "colonies/values.h"

#include <cmath>

#include "colonies/error.h"

namespace colonies {

namespace {

constexpr const char* OCTET_STREAM = "application/octet-stream";
constexpr const char* JSON_TYPE = "application/json";
// Deeper values would have to be copied and written by as many calls inside one another.
constexpr std::size_t MAX_LEVELS = 1'000;

[[noreturn]] void too_deep() { throw Refused("a value of more than " + std::to_string(MAX_LEVELS) + " levels"); }

void check(const Json& value, std::size_t level) {
  if (level > MAX_LEVELS) too_deep();
  if (value.is_number_float() && !std::isfinite(value.get<double>())) throw Refused("JSON has no numbers that are not finite");
  if (value.is_binary() && level > 0) throw Refused("JSON has no bytes: they are a value of their own");
  if (value.is_structured()) {
    for (const auto& part : value) check(part, level + 1);
  }
}

// Looks at a text before it becomes a value, for then an integer that is too large would be another number.
class Limits : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(std::int64_t) override { return true; }
  bool number_unsigned(std::uint64_t) override { return true; }
  bool number_float(double, const std::string& text) override {
    if (text.find_first_of(".eE") == std::string::npos) throw Refused("an integer of more than 64 bits: " + text.substr(0, 40));
    return true;
  }
  bool string(std::string&) override { return true; }
  bool binary(Json::binary_t&) override { return true; }
  bool start_object(std::size_t) override { return enter(); }
  bool key(std::string&) override { return true; }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_array() override { return leave(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception& error) override {
    throw Refused(std::string("this is not JSON: ") + error.what());
  }

 private:
  bool enter() {
    if (++level_ > MAX_LEVELS) too_deep();
    return true;
  }
  bool leave() {
    --level_;
    return true;
  }
  std::size_t level_ = 0;
};

}  // namespace

Json bytes(std::string_view data) { return Json::binary({data.begin(), data.end()}); }

Value encode(const Json& value) {
  Value encoded;
  check(value, 0);
  if (value.is_binary()) {
    encoded.set_media_type(OCTET_STREAM);
    encoded.set_data(value.get_binary().data(), value.get_binary().size());
    return encoded;
  }
  try {
    encoded.set_data(value.dump());
  } catch (const Json::exception& error) {
    throw Refused(std::string("this cannot be sent: ") + error.what());
  }
  return encoded;
}

Json decode(const Value& value) {
  if (value.media_type() == OCTET_STREAM) return bytes(value.data());
  if (!value.media_type().empty() && value.media_type() != JSON_TYPE) {
    throw Refused("a value of the media type " + value.media_type() + " is neither JSON nor bytes");
  }
  Limits limits;
  Json::sax_parse(value.data(), &limits);
  return Json::parse(value.data());
}

}  // namespace colonies
