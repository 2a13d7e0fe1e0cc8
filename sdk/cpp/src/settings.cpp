#include "colonies/settings.h"

#include <cstdlib>
#include <string_view>
#include <utility>

#include "colonies/error.h"

namespace colonies {

namespace {

constexpr int MAX_PORT = 65'535;

std::string variable(const char* name, const std::string& otherwise = "") {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

int port_of(const std::string& text) {
  const bool digits = !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == std::string::npos;
  const int port = digits ? std::stoi(text) : 0;
  if (port < 1 || port > MAX_PORT) throw Refused("COLONIES_PORT is " + text + ": a port is a number from 1 to 65535");
  return port;
}

}  // namespace

Settings Settings::from_env() {
  Settings settings;
  settings.host = variable("COLONIES_HOST", settings.host);
  settings.port = port_of(variable("COLONIES_PORT", std::to_string(settings.port)));
  settings.cluster = variable("COLONIES_CLUSTER");
  settings.colony = variable("COLONIES_COLONY");
  settings.key_file = variable("COLONIES_KEY_FILE");
  settings.ca_file = variable("COLONIES_CA_FILE");
  settings.cert_file = variable("COLONIES_CERT_FILE");
  settings.cert_key_file = variable("COLONIES_CERT_KEY_FILE");
  if (const std::string choice = variable("COLONIES_TLS"); !choice.empty()) {
    if (choice != "on" && choice != "off") throw Refused("COLONIES_TLS is " + choice + ": it is on or off");
    settings.tls = choice == "on";
  }
  return settings;
}

void Settings::check() const {
  for (const auto& [name, value] : {std::pair("CLUSTER", &cluster), std::pair("COLONY", &colony)}) {
    if (!value->empty()) continue;
    throw Refused(std::string("COLONIES_") + name + " is not set: start a server with `colonies up`, then eval \"$(colonies profile env)\"");
  }
}

std::string Settings::address() const {
  const bool bare_v6 = host.find(':') != std::string::npos && host.front() != '[';
  return (bare_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

bool Settings::uses_tls() const {
  if (tls.has_value()) return *tls;
  if (!ca_file.empty() || !cert_file.empty()) return true;
  const bool loopback = host == "localhost" || host == "::1" || host == "[::1]" || std::string_view(host).substr(0, 4) == "127.";
  if (loopback) return false;
  throw Refused("plaintext to " + host + " could be read on the way: set COLONIES_CA_FILE or COLONIES_TLS=on, or COLONIES_TLS=off " +
                "if that network is trusted");
}

std::string executor_key_file(const std::string& colony, const std::string& name) {
  const std::string base = variable("XDG_CONFIG_HOME", variable("HOME", ".") + "/.config");
  return base + "/colonies/executors/" + colony + "/" + name + ".key";
}

}  // namespace colonies
