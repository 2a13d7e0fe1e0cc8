// Keys, identities and signed texts, as protos/vectors/README.md specifies them.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

typedef struct evp_pkey_st EVP_PKEY;

namespace colonies {

std::string to_hex(std::string_view bytes);
// Throws Refused unless the text is hex digits, two for each byte.
std::string from_hex(std::string_view text);
// 64 hex digits.
std::string sha256_hex(std::string_view bytes);
// The identity that a raw public key is known by: 64 hex digits.
std::string identity_of(std::string_view public_key);
// Unix milliseconds of this machine's clock.
std::int64_t now_ms();

// An Ed25519 key. Copies share it.
class PrivateKey {
 public:
  // From its 32 bytes; throws Refused for any other number of them.
  explicit PrivateKey(std::string_view seed);

  static PrivateKey generate();
  // From 64 hex digits.
  static PrivateKey from_hex(std::string_view text);
  // From a file of 64 hex digits, which only its owner may read. Throws Refused if others may, or if it holds no key.
  static PrivateKey load(const std::string& path);
  // The same, of a file that is made (mode 0600, and its folders) when there is none yet.
  static PrivateKey load_or_create(const std::string& path);

  // 32 raw bytes.
  const std::string& public_key() const { return public_key_; }
  const std::string& identity() const { return identity_; }
  // 64 raw bytes.
  std::string sign(std::string_view text) const;

 private:
  std::shared_ptr<EVP_PKEY> key_;
  std::string public_key_;
  std::string identity_;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;

// A call as it is signed.
struct SignedCall {
  std::string text;
  // The four entries that go with the call.
  Metadata metadata;
  // What receipts know the call by.
  std::string digest;
};

// Signs one call; `body` is the request message just as it is sent, and `nonce` 32 hex digits that were never used.
// Throws Refused if a value holds a line feed, as all of these do.
SignedCall sign_call(const PrivateKey& key, const std::string& method, const std::string& audience, std::string_view body,
                     std::int64_t time_ms, const std::string& nonce);

// A new member's agreement to its membership; `role` is "colony_owner" or "user". Gives the raw signature.
std::string prove_join(const PrivateKey& key, const std::string& audience, const std::string& colony, const std::string& role,
                       const std::string& name, std::int64_t time_ms);

// A new key's proof that it takes over from the one with the identity `old_key`. Gives the raw signature.
std::string prove_rotation(const PrivateKey& key, const std::string& audience, const std::string& colony,
                           const std::string& old_key, std::int64_t time_ms);

// Signs calls for one cluster, from any thread. Nonces begin with the prefix that the cluster has asked for last.
class Signer {
 public:
  // Throws Refused if the audience holds a line feed.
  Signer(PrivateKey key, std::string audience);

  const PrivateKey& key() const { return key_; }
  Metadata sign(const std::string& method, std::string_view body) const;
  // Takes a prefix from a refusal: 16 lower-case hex digits. Gives false, and changes nothing, for any other text.
  bool use_nonce_prefix(const std::string& prefix);

 private:
  const PrivateKey key_;
  const std::string audience_;
  mutable std::mutex mutex_;
  std::string nonce_prefix_;
};

}  // namespace colonies
