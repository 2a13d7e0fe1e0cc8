// Keys, and the files that hold them.

#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "colonies/error.h"
#include "colonies/signing.h"

namespace colonies {

namespace {

constexpr std::size_t KEY_BYTES = 32;
constexpr std::size_t SIGNATURE_BYTES = 64;

const unsigned char* bytes_of(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

std::string random_seed() {
  unsigned char seed[KEY_BYTES];
  if (RAND_bytes(seed, KEY_BYTES) != 1) throw std::runtime_error("OpenSSL: no random bytes");
  return std::string(reinterpret_cast<char*>(seed), KEY_BYTES);
}

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  throw Refused("the key file " + path + " " + what);
}

// Writes a file that only its owner may read. It appears whole or not at all; one that is there already stays.
void save(const std::string& path, const std::string& text) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder);
  const std::string scratch = path + "." + to_hex(random_seed().substr(0, 4));
  const int file = open(scratch.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) refuse(path, std::string("cannot be written: ") + std::strerror(errno));
  const bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && fsync(file) == 0;
  close(file);
  const bool there = written && (link(scratch.c_str(), path.c_str()) == 0 || errno == EEXIST);
  const int problem = errno;
  unlink(scratch.c_str());
  if (!there) refuse(path, std::string("cannot be written: ") + std::strerror(problem));
}

}  // namespace

PrivateKey::PrivateKey(std::string_view seed) {
  if (seed.size() != KEY_BYTES) throw Refused("a private key has 32 bytes, and not " + std::to_string(seed.size()));
  key_.reset(EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, bytes_of(seed), seed.size()), EVP_PKEY_free);
  unsigned char raw[KEY_BYTES];
  std::size_t size = sizeof raw;
  if (!key_ || EVP_PKEY_get_raw_public_key(key_.get(), raw, &size) != 1) throw std::runtime_error("OpenSSL: no Ed25519 key");
  public_key_.assign(reinterpret_cast<char*>(raw), size);
  identity_ = identity_of(public_key_);
}

PrivateKey PrivateKey::generate() { return PrivateKey(random_seed()); }

PrivateKey PrivateKey::from_hex(std::string_view text) { return PrivateKey(colonies::from_hex(text)); }

PrivateKey PrivateKey::load(const std::string& path) {
  struct stat facts = {};
  std::ifstream file(path);
  if (!file || stat(path.c_str(), &facts) != 0) refuse(path, std::string("cannot be read: ") + std::strerror(errno));
  if (facts.st_mode & 077) refuse(path, "can be read by others; run: chmod 600 " + path);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.pop_back();
  try {
    return from_hex(text);
  } catch (const Refused& refused) {
    refuse(path, std::string("holds no key: ") + refused.what());
  }
}

PrivateKey PrivateKey::load_or_create(const std::string& path) {
  if (!std::filesystem::exists(path)) save(path, to_hex(random_seed()) + "\n");
  return load(path);
}

std::string PrivateKey::sign(std::string_view text) const {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  std::string signature(SIGNATURE_BYTES, '\0');
  std::size_t size = signature.size();
  if (EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()) != 1 ||
      EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, bytes_of(text), text.size()) != 1) {
    throw std::runtime_error("OpenSSL: no signature");
  }
  return signature;
}

}  // namespace colonies
