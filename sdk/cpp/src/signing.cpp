#include "colonies/signing.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

#include <chrono>
#include <initializer_list>

#include "colonies/error.h"

namespace colonies {

namespace {

constexpr std::size_t NONCE_BYTES = 16;
constexpr std::size_t PREFIX_DIGITS = 16;
constexpr std::string_view HEX_DIGITS = "0123456789abcdef";

std::string digest(const EVP_MD* algorithm, std::string_view bytes) {
  unsigned char made[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), made, &size, algorithm, nullptr) != 1) throw std::runtime_error("OpenSSL: no digest");
  return std::string(reinterpret_cast<char*>(made), size);
}

std::string text_of(std::initializer_list<std::string_view> values) {
  std::string text;
  for (const auto value : values) {
    if (value.find('\n') != std::string_view::npos) {
      throw Refused("no value of a signed text may hold a line feed: it would read as two");
    }
    text.append(value).push_back('\n');
  }
  return text;
}

}  // namespace

std::string to_hex(std::string_view bytes) {
  std::string text;
  for (const unsigned char byte : bytes) text.append({HEX_DIGITS[byte >> 4], HEX_DIGITS[byte & 15]});
  return text;
}

std::string from_hex(std::string_view text) {
  const auto digit = [](char character) -> unsigned {
    if (character >= '0' && character <= '9') return character - '0';
    if (character >= 'a' && character <= 'f') return character - 'a' + 10;
    if (character >= 'A' && character <= 'F') return character - 'A' + 10;
    throw Refused("this text is not of hex digits alone");
  };
  if (text.size() % 2 != 0) throw Refused("hex digits come in pairs");
  std::string bytes;
  for (std::size_t at = 0; at < text.size(); at += 2) {
    bytes.push_back(static_cast<char>(digit(text[at]) << 4 | digit(text[at + 1])));
  }
  return bytes;
}

std::string sha256_hex(std::string_view bytes) { return to_hex(digest(EVP_sha256(), bytes)); }

std::string identity_of(std::string_view public_key) { return to_hex(digest(EVP_sha3_256(), public_key)); }

std::int64_t now_ms() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

SignedCall sign_call(const PrivateKey& key, const std::string& method, const std::string& audience, std::string_view body,
                     std::int64_t time_ms, const std::string& nonce) {
  const std::string time = std::to_string(time_ms);
  std::string text = text_of({"colonies-call-v1", method, audience, time, nonce, sha256_hex(body)});
  const std::string signature = key.sign(text);
  Metadata metadata = {{"colonies-public-key", to_hex(key.public_key())},
                       {"colonies-time", time},
                       {"colonies-nonce", nonce},
                       {"colonies-signature", to_hex(signature)}};
  return {text, std::move(metadata), sha256_hex(text + key.public_key() + signature)};
}

std::string prove_join(const PrivateKey& key, const std::string& audience, const std::string& colony, const std::string& role,
                       const std::string& name, std::int64_t time_ms) {
  return key.sign(text_of({"colonies-join-v1", audience, colony, role, name, std::to_string(time_ms)}));
}

std::string prove_rotation(const PrivateKey& key, const std::string& audience, const std::string& colony,
                           const std::string& old_key, std::int64_t time_ms) {
  return key.sign(text_of({"colonies-rotate-v1", audience, colony, old_key, std::to_string(time_ms)}));
}

Signer::Signer(PrivateKey key, std::string audience) : key_(std::move(key)), audience_(std::move(audience)) {
  text_of({audience_});
}

Metadata Signer::sign(const std::string& method, std::string_view body) const {
  std::string nonce;
  {
    const std::lock_guard lock(mutex_);
    nonce = nonce_prefix_;
  }
  unsigned char random[NONCE_BYTES];
  if (RAND_bytes(random, NONCE_BYTES) != 1) throw std::runtime_error("OpenSSL: no random bytes");
  nonce += to_hex({reinterpret_cast<char*>(random), NONCE_BYTES - nonce.size() / 2});
  return sign_call(key_, method, audience_, body, now_ms(), nonce).metadata;
}

bool Signer::use_nonce_prefix(const std::string& prefix) {
  if (prefix.size() != PREFIX_DIGITS || prefix.find_first_not_of(HEX_DIGITS) != std::string::npos) return false;
  const std::lock_guard lock(mutex_);
  nonce_prefix_ = prefix;
  return true;
}

}  // namespace colonies
