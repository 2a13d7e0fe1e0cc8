// Answers the questions of conformance.py: a JSON object a line, in and out. Signing is the SDK's; what a server checks
// (protos/vectors/README.md, "Verifying") is written here, for no client needs it.

#include <openssl/evp.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>

#include "colonies/error.h"
#include "colonies/signing.h"

namespace {

using colonies::from_hex;
using colonies::to_hex;
using Json = nlohmann::ordered_json;

constexpr std::int64_t MAX_SKEW_MS = 60'000;
constexpr std::int64_t MAX_PROOF_AGE_MS = 24 * 3'600'000;

// Numbers of 32 bytes, big-endian, so that they compare as texts do: 2^255 - 19, and the order of the base point.
const std::string PRIME = "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed";
const std::string ORDER = "1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed";
// The y of the eight points of small order.
const std::string SMALL_Y[] = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000001",
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffec",
    "05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826",
    "7a03ac9277fdc74ec6cc392cfa53202a0f67100d760b3cba4fd84d3d706a17c7",
};

std::string text(const Json& given, const char* name) { return given.at(name).get<std::string>(); }

std::string big_endian(std::string bytes) {
  std::reverse(bytes.begin(), bytes.end());
  return to_hex(bytes);
}

// A point that is encoded in the one right way, and is none of small order.
bool is_sound(std::string point) {
  point.back() = static_cast<char>(point.back() & 0x7f);  // without the sign of x
  const std::string y = big_endian(point);
  return y < PRIME && std::find(std::begin(SMALL_Y), std::end(SMALL_Y), y) == std::end(SMALL_Y);
}

bool fits(const std::string& key, const std::string& signature, const std::string& signed_text) {
  if (key.size() != 32 || signature.size() != 64) return false;
  if (!is_sound(key) || !is_sound(signature.substr(0, 32)) || big_endian(signature.substr(32)) >= ORDER) return false;
  const auto bytes = [](const std::string& of) { return reinterpret_cast<const unsigned char*>(of.data()); };
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> public_key(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, bytes(key), key.size()), EVP_PKEY_free);
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  return public_key && EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, public_key.get()) == 1 &&
         EVP_DigestVerify(context.get(), bytes(signature), signature.size(), bytes(signed_text), signed_text.size()) == 1;
}

// The lines of a text that is signed; none if a value holds a line feed, for that is one that nobody signs.
std::optional<std::string> text_of(const std::vector<std::string>& values) {
  std::string lines;
  for (const auto& value : values) {
    if (value.find('\n') != std::string::npos) return std::nullopt;
    lines += value + "\n";
  }
  return lines;
}

std::string body_of(const Json& given) {
  std::string body;
  const std::string part = from_hex(text(given, "body_hex"));
  for (auto times = given.at("body_times").get<std::int64_t>(); times > 0; --times) body += part;
  return body;
}

std::vector<std::string> lines_of_proof(const Json& given, bool join) {
  const std::string time = std::to_string(given.at("time_ms").get<std::int64_t>());
  if (!join) return {"colonies-rotate-v1", text(given, "audience"), text(given, "colony"), text(given, "old_key"), time};
  return {"colonies-join-v1", text(given, "audience"), text(given, "colony"), text(given, "role"), text(given, "name"), time};
}

Json sign(const std::string& ask, const Json& given) {
  const auto key = colonies::PrivateKey::from_hex(text(given, "test_private_key"));
  const std::string public_key = to_hex(key.public_key());
  if (ask == "identity") return {{"public_key_hex", public_key}, {"identity", key.identity()}};
  const std::int64_t time_ms = given.at("time_ms");
  if (ask == "sign_call") {
    const auto made =
        colonies::sign_call(key, text(given, "method"), text(given, "audience"), body_of(given), time_ms, text(given, "nonce"));
    Json metadata = Json::array();
    for (const auto& [name, value] : made.metadata) metadata.push_back({name, value});
    return {{"identity", key.identity()}, {"text", made.text}, {"metadata", metadata}, {"digest", made.digest}};
  }
  const bool join = ask == "sign_join";
  const auto signature = join ? colonies::prove_join(key, text(given, "audience"), text(given, "colony"), text(given, "role"),
                                                     text(given, "name"), time_ms)
                              : colonies::prove_rotation(key, text(given, "audience"), text(given, "colony"),
                                                         text(given, "old_key"), time_ms);
  return {{"identity", key.identity()},
          {"text", text_of(lines_of_proof(given, join)).value()},
          {"public_key_hex", public_key},
          {"signature_hex", to_hex(signature)}};
}

Json check_call(const Json& given) {
  static const std::vector<std::pair<std::string, std::regex>> FORMATS = {
      {"colonies-public-key", std::regex("[0-9a-f]{64}")},
      {"colonies-time", std::regex("0|[1-9][0-9]{0,14}")},
      {"colonies-nonce", std::regex("[0-9a-f]{32}")},
      {"colonies-signature", std::regex("[0-9a-f]{128}")}};
  const auto entries = [&given](const std::string& name) {
    std::vector<std::string> found;
    for (const auto& entry : given.at("metadata")) {
      if (entry.at(0) == name) found.push_back(entry.at(1));
    }
    return found;
  };
  for (const auto& [name, format] : FORMATS) {
    if (entries(name).empty() && entries(name + "-bin").empty()) return {{"error", "SIGNATURE_MISSING"}};
  }
  std::vector<std::string> values;
  for (const auto& [name, format] : FORMATS) {
    const auto found = entries(name);
    const bool formed = found.size() == 1 && entries(name + "-bin").empty() && std::regex_match(found[0], format);
    if (!formed) return {{"error", "SIGNATURE_MALFORMED"}};
    values.push_back(found[0]);
  }
  if (std::abs(given.at("now_ms").get<std::int64_t>() - std::stoll(values[1])) > MAX_SKEW_MS) return {{"error", "SIGNATURE_STALE"}};
  const auto key = from_hex(values[0]), signature = from_hex(values[3]);
  const auto signed_text = text_of({"colonies-call-v1", text(given, "method"), text(given, "audience"), values[1], values[2],
                                    colonies::sha256_hex(body_of(given))});
  if (!signed_text || !fits(key, signature, *signed_text)) return {{"error", "SIGNATURE_INVALID"}};
  return {{"identity", colonies::identity_of(key)}, {"digest", colonies::sha256_hex(*signed_text + key + signature)}};
}

Json check_proof(const Json& given, bool join) {
  const std::int64_t age = given.at("now_ms").get<std::int64_t>() - given.at("time_ms").get<std::int64_t>();
  if (age < -MAX_SKEW_MS || age > MAX_PROOF_AGE_MS) return {{"error_field", "time_ms"}};
  const auto key = from_hex(text(given, "public_key_hex"));
  const auto signed_text = text_of(lines_of_proof(given, join));
  if (!signed_text || !fits(key, from_hex(text(given, "signature_hex")), *signed_text)) return {{"error_field", "signature"}};
  return {{"identity", colonies::identity_of(key)}};
}

Json answer_to(const std::string& ask, const Json& given) {
  if (ask == "check_call") return check_call(given);
  if (ask == "check_join" || ask == "check_rotation") return check_proof(given, ask == "check_join");
  // Only signing may refuse: an error out of a check is a defect.
  try {
    return sign(ask, given);
  } catch (const colonies::Refused&) {
    return {{"refused", true}};
  }
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    const Json question = Json::parse(line);
    std::cout << answer_to(question.at("ask"), question.at("given")).dump() << "\n";
  }
  return 0;
}
